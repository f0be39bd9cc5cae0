"""The flow that ends what is left over."""

from contextlib import closing
from typing import Annotated, TypeAlias
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from pydantic import BeforeValidator

from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.flows.names import name_of_reap
from ags_flows.flows.parameters import Text
from ags_flows.models import Reaped, ReapReport, ReapRules
from ags_flows.reaping.owners import PrefectOwners
from ags_flows.reaping.reaper import Reaper
from ags_flows.run.artifacts import show
from ags_flows.run.events import emit
from ags_flows.run.logs import run_logger

ARTIFACT = "reap"
DEFAULT_RULES = ReapRules()
Rules: TypeAlias = Annotated[ReapRules, BeforeValidator(lambda given: ReapRules() if given is None else given)]
MOST_ROWS = 500
"""Rows of the table artifact for what was stopped: the server keeps an artifact whole, and the UI shows it whole."""


@flow(
    name="reap",
    flow_run_name=name_of_reap,
    description="Stop sandboxes of flow runs that are over, and what else the rules name. Nothing is stopped unless "
    "AGS and the Prefect server both show that it is ours and orphaned.",
)
def reap(
    dry_run: bool = False,
    rules: Rules = DEFAULT_RULES,
    flow_run_id: Text = "",
    config: ConfigChoice = "",
) -> ReapReport:
    """Stop what is provably ours and provably orphaned.

    An instance is ours by the metadata that ags_flows writes. It is orphaned if all flow runs that own it, from the
    outermost one to the one that started it, are over, or were deleted from the Prefect server. A run was deleted if
    the server does not know it, but knows a run of the same flow that started after the instance was created. Other
    runs that the server does not know may belong to another server: their instances are spared, and so are instances
    whose lease is being renewed. Runs and instances are read again just before anything is stopped.

    Args:
        dry_run: Report what would be stopped, and stop nothing.
        rules: Which rules hold, for how long something is spared, what is protected, how much may be stopped at most.
        flow_run_id: Only the sandboxes of this flow run: what an automation passes for a run that crashed.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.

    Returns:
        What was stopped and why, what was spared and why.

    Raises:
        ConfigurationError: `flow_run_id` is not an id; nothing was stopped.
        UnreachableError: AGS or the Prefect server did not respond: nothing was stopped, or the rest was left alone.

    Example:
        ```python
        report = reap(dry_run=True, rules=ReapRules(grace_minutes=30, snapshots_days=14))
        ```
    """
    _check(flow_run_id)
    config = resolve_config(config)
    logger = run_logger()
    with get_client(sync_client=True) as client, closing(PacedControlPlane(config.connection())) as control:
        owners = PrefectOwners(client, rules.sole_server)
        reaper = Reaper(
            control,
            owners,
            rules,
            dry_run=dry_run,
            flow_run_id=flow_run_id or None,
            now=owners.clock(),
            on_reaped=_tell,
        )
        report = reaper.run()
    failed = sum(1 for one in report.stopped if one.problem)
    logger.info(
        "%s %d of %d live sandboxes and other things; spared %d%s%s",
        "Would stop" if dry_run else "Stopped",
        len(report.stopped) - failed,
        report.seen,
        sum(report.spared_count.values()),
        f"; {failed} could not be stopped" if failed else "",
        f"; {report.left} are left to the next run (at_most={rules.at_most})" if report.left else "",
    )
    title = _summary(report, rules, config.region)
    show(lambda: create_table_artifact(key=ARTIFACT, table=_rows(report), description=title))
    if report.incomplete:
        raise UnreachableError(f"Not all could be judged; the rest was left alone. {report.incomplete}")
    return report


def _check(flow_run_id: str) -> None:
    try:
        if flow_run_id:
            UUID(flow_run_id)
    except ValueError:
        raise ConfigurationError(
            f"flow_run_id: {flow_run_id!r} is not the id of a flow run.",
            hint="It is the last part of the URL of the run's page. Nothing was stopped.",
        ) from None


def _tell(reaped: Reaped) -> None:
    emit(
        reaped.kind,
        reaped.id,
        "reaped",
        tool=reaped.tool,
        flow_run_id=reaped.flow_run_id,
        flow_run_name=reaped.flow_run,
        payload={"rule": reaped.rule, "reason": reaped.reason, "state": reaped.state},
    )


def _rows(report: ReapReport) -> list[dict[str, str]]:
    stopped = "would stop" if report.dry_run else "stopped"
    rows = [_row(one, "not stopped" if one.problem else stopped) for one in report.stopped[:MOST_ROWS]]
    return rows + [_row(one, "spared") for one in report.spared]


def _row(one: Reaped, outcome: str) -> dict[str, str]:
    return {
        "outcome": outcome,
        "why": one.problem or one.reason,
        "rule": one.rule or "",
        "what": one.kind,
        "id": one.id,
        "tool": one.tool,
        "flow run": one.flow_run or one.flow_run_id,
        "state": one.state,
        "age": f"{one.age_hours:.1f} h" if one.age_hours is not None else "",
    }


def _summary(report: ReapReport, rules: ReapRules, region: str) -> str:
    by_rule: dict[str, int] = {}
    for one in report.stopped:
        name = f"{one.rule}, failed" if one.problem else str(one.rule)
        by_rule[name] = by_rule.get(name, 0) + 1
    lines = [
        f"**{'Dry run in' if report.dry_run else 'Reaped in'} {region}**: {report.seen:,} live sandboxes seen, "
        f"{len(report.stopped):,} {'would be stopped' if report.dry_run else 'to stop'}, "
        f"{sum(report.spared_count.values()):,} of ours spared, in {report.seconds:.1f} s.",
        "",
        *(f"- {count:,} × {name}" for name, count in by_rule.items()),
        *(f"- {count:,} × spared: {reason}" for reason, count in report.spared_count.items()),
    ]
    if report.left:
        lines.append(f"- **{report.left:,} more are left to the next run: at_most is {rules.at_most:,}.**")
    if report.incomplete:
        lines.append(f"- **Not all could be judged: {report.incomplete}**")
    return "\n".join(lines)
