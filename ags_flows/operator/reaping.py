"""The reaper from a terminal."""

from __future__ import annotations

from typing import Any

from prefect.settings import PREFECT_API_URL

from ags_flows.errors import ConfigurationError
from ags_flows.flows import reap
from ags_flows.models import ReapReport, ReapRules
from ags_flows.operator.steps import steps_on_stderr
from ags_flows.run.automations import require_server

COLUMNS = ("id", "what", "outcome", "why", "flow run", "tool")


def reap_now(dry_run: bool, grace: float | None, flow_run: str | None) -> ReapReport:
    """Reap once, as a run of the flow `reap`.

    Raises:
        ConfigurationError: No Prefect server is known, without whose word nothing is stopped.
        UnreachableError: It does not answer.
    """
    if not PREFECT_API_URL.value():
        raise ConfigurationError(
            "The reaper asks the Prefect server whose sandboxes these are, and PREFECT_API_URL is not set.",
            hint="Set it to the server that your flows use, or stop single sandboxes with `ags-flows stop`.",
        )
    rules = ReapRules() if grace is None else ReapRules(grace_minutes=grace)
    require_server()
    with steps_on_stderr(quiet=True):
        return reap(dry_run=dry_run, rules=rules, flow_run_id=flow_run or "")


def rows_of(report: ReapReport) -> list[dict[str, Any]]:
    """Return what was stopped, and what was spared, as rows of a listing."""
    stopped = "would stop" if report.dry_run else "stopped"
    judged = [*((one, stopped) for one in report.stopped), *((one, "spared") for one in report.spared)]
    return [
        {
            "id": one.id,
            "what": one.kind,
            "outcome": "not stopped" if one.problem else outcome,
            "why": one.problem or one.reason,
            "flow run": one.flow_run or one.flow_run_id,
            "tool": one.tool,
        }
        for one, outcome in judged
    ]


def summary_of(report: ReapReport) -> str:
    """Return the outcome in one line."""
    failed = sum(1 for one in report.stopped if one.problem)
    parts = [
        f"{report.seen} live sandboxes seen",
        f"{len(report.stopped) - failed} {'would be stopped' if report.dry_run else 'stopped'}",
        f"{sum(report.spared_count.values())} of ours spared",
        *([f"{failed} could not be stopped"] if failed else []),
        *([f"{report.left} left to the next run"] if report.left else []),
    ]
    return ", ".join(parts) + "."
