"""The reaper from a terminal."""

from __future__ import annotations

from typing import Any

from prefect.settings import PREFECT_API_URL

from ags_flows.blocks import AGSConfig
from ags_flows.cli.listing import Column
from ags_flows.cli.steps import run_with_steps
from ags_flows.errors import ConfigurationError
from ags_flows.flows import reap
from ags_flows.models import Reaped, ReapReport, ReapRules
from ags_flows.models.checks import check_name

COLUMNS = (
    Column("outcome"),
    Column("instance_id", "instance", whole=True),
    Column("snapshot_id", "snapshot", whole=True),
    Column("tool_name", "tool"),
    Column("flow_run_name", "flow run"),
    Column("reason", folded=True),
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
    document = document_of(report)
    return [*document["stopped"], *document["spared"]]


def document_of(report: ReapReport) -> dict[str, Any]:
    """Return the report with a row for each resource, whose keys are those of other listings."""
    stopped = "would stop" if report.dry_run else "stopped"
    return {
        **report.model_dump(),
        "stopped": [_row(one, "not stopped" if one.problem else stopped) for one in report.stopped],
        "spared": [_row(one, "spared") for one in report.spared],
    }


def summary_of(report: ReapReport, flow_run: str | None = None) -> str:
    """Return the outcome in one line, of all sandboxes or of those of a flow run."""
    failed = sum(1 for one in report.stopped if one.problem)
    parts = [
        f"{report.seen} live sandboxes seen",
        *([f"none of flow run {flow_run}"] if flow_run and not (report.stopped or report.spared) else []),
        f"{len(report.stopped) - failed} {'would be stopped' if report.dry_run else 'stopped'}",
        f"{sum(report.spared_count.values())} of ours spared",
        *([f"{failed} could not be stopped"] if failed else []),
        *([f"{report.left} left to the next run"] if report.left else []),
    ]
    return ", ".join(parts) + "."


def _row(one: Reaped, outcome: str) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "reason": one.problem or one.reason,
        "rule": one.rule or "",
        "kind": one.kind,
        **{f"{kind}_id": one.id if one.kind == kind else "" for kind in ("instance", "tool", "snapshot")},
        "status": one.state,
        "tool_name": one.tool,
        "flow_run_name": one.flow_run,
        "flow_run_id": one.flow_run_id,
        "age_seconds": None if one.age_hours is None else int(one.age_hours * 3600),
    }
