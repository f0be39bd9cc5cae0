"""The reaper from a terminal."""

from __future__ import annotations

from typing import Any

from prefect.settings import PREFECT_API_URL

from ags_flows.blocks import AGSConfig
from ags_flows.cli.listing import Column
from ags_flows.cli.steps import run_with_steps
from ags_flows.errors import ConfigurationError
from ags_flows.flows import reap
from ags_flows.models import ReapReport, ReapRules
from ags_flows.models.checks import check_name

COLUMNS = (
    Column("id", whole=True),
    Column("kind"),
    Column("outcome"),
    Column("reason", folded=True),
    Column("flow_run"),
    Column("tool_name", "tool"),
)


def reap_now(dry_run: bool, grace: float | None, flow_run: str | None, config: AGSConfig) -> ReapReport:
    """Reap once, as a run of the flow `reap`.

    Raises:
        ConfigurationError: PREFECT_API_URL is not set: nothing is stopped without the state of its flow run. Or
            `flow_run` is empty, which would be every flow run.
        UnreachableError: The Prefect server does not respond.
    """
    check_name(flow_run, "flow_run")
    if not PREFECT_API_URL.value():
        raise ConfigurationError(
            "The reaper asks the Prefect server whose sandboxes these are, and PREFECT_API_URL is not set.",
            hint="Set it to the server that your flows use, or stop single sandboxes with `ags-flows stop`.",
        )
    rules = ReapRules() if grace is None else ReapRules(grace_minutes=grace)
    return run_with_steps(reap, True, dry_run=dry_run, rules=rules, flow_run_id=flow_run or "", config=config)


def rows_of(report: ReapReport) -> list[dict[str, Any]]:
    """Return what was stopped, and what was spared, as rows of a listing."""
    stopped = "would stop" if report.dry_run else "stopped"
    judged = [*((one, stopped) for one in report.stopped), *((one, "spared") for one in report.spared)]
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "outcome": "not stopped" if one.problem else outcome,
            "reason": one.problem or one.reason,
            "flow_run": one.flow_run or one.flow_run_id,
            "tool_name": one.tool,
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
