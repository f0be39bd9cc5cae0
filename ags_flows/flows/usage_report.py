"""The flow that reports what sandboxes used, by tool, flow and deployment."""

import csv
import io
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, TypeAlias
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowFilter, FlowFilterId
from pydantic import BeforeValidator, Field

from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import ConfigurationError
from ags_flows.flows.names import name_of_usage
from ags_flows.flows.parameters import Text
from ags_flows.models import Prices, Usage, UsageReport
from ags_flows.run.artifacts import show
from ags_flows.run.logs import run_logger
from ags_flows.usage import Ledger

ARTIFACT = "usage"
MOST_ROWS = 500
AT_ONCE = 100
NO_PRICES = Prices()
GivenPrices: TypeAlias = Annotated[Prices, BeforeValidator(lambda given: Prices() if given is None else given)]


@flow(
    name="usage-report",
    flow_run_name=name_of_usage,
    description="What sandboxes used: seconds, CPU and memory, by tool, flow and deployment.",
)
def usage_report(
    hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24.0,
    until: datetime | None = None,
    prices: GivenPrices = NO_PRICES,
    csv_file: Text = "",
    config: ConfigChoice = "",
) -> UsageReport:
    """Report what the sandboxes of an account used, by tool, by flow and by deployment.

    It is computed from AGS's records of instances, which contain the times of creation and of the last change; earlier
    pauses count as use. Records of ended instances disappear after a while: run this every night.

    Args:
        hours: How long before `until` it begins.
        until: Where it ends, empty for now; without a time zone it is UTC.
        prices: What an hour costs. Without, costs are left out.
        csv_file: Where the same table is written as CSV, a local path; directories are made. Empty: nowhere.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.

    Returns:
        The total, and one usage for each tool, flow and deployment.

    Raises:
        ConfigurationError: `csv_file` cannot be written.
        UnreachableError: AGS did not respond.

    Example:
        ```python
        report = usage_report(hours=24, prices=Prices(cpu_hour=0.3, memory_gib_hour=0.05))
        print(report.total.sandboxes, report.total.cpu_hours, report.total.cost)
        ```
    """
    config = resolve_config(config)
    target = _writable(csv_file) if csv_file else None
    until = until or datetime.now(timezone.utc)
    until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
    with closing(PacedControlPlane(config.connection())) as control:
        tools = {tool.id: tool for tool in control.list_tools()}
        ledger = Ledger(until - timedelta(hours=hours), until, tools)
        ledger.add(control.each_instance())
    report = UsageReport(
        since=ledger.since,
        until=until,
        total=ledger.total.usage(None, "all", prices),
        usages=tuple(ledger.usages(_names(ledger), prices)),
        currency=prices.currency if prices.known else "",
        csv=str(target) if target else None,
    )
    if report.csv:
        _write_csv(Path(report.csv), report)
    rows = [_row(usage, report.currency) for usage in report.usages[:MOST_ROWS]]
    show(lambda: create_table_artifact(key=ARTIFACT, table=rows, description=_summary(report, config.region)))
    run_logger().info("%s", _line(report))
    return report


def _names(ledger: Ledger) -> dict[str, str]:
    """Return the names of flows and deployments; what this Prefect server does not know keeps its id."""
    names: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        for ids in _chunks(ledger.groups("flow")):
            flows = client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=ids)))
            names.update({str(one.id): one.name for one in flows})
        for ids in _chunks(ledger.groups("deployment")):
            deployments = client.read_deployments(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)))
            theirs = FlowFilter(id=FlowFilterId(any_=list({one.flow_id for one in deployments})))
            flows_of = {one.id: one.name for one in client.read_flows(flow_filter=theirs)}
            # Many a flow has a deployment of the same name.
            names.update({str(one.id): f"{flows_of.get(one.flow_id, '?')}/{one.name}" for one in deployments})
    return names


def _writable(csv_file: str) -> Path:
    """Return the path of a file that can be written, with its directories made."""
    path = Path(csv_file).expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise ConfigurationError(f"csv_file: {path} cannot be written: {error.strerror}.") from error
    return path


def _chunks(groups: Iterable[str]) -> Iterable[list[UUID]]:
    ids = []
    for group in sorted(groups):
        try:
            ids.append(UUID(group))
        except ValueError:
            # Not an id: the group of those that have none.
            continue
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))


def _row(usage: Usage, currency: str) -> dict[str, str]:
    row = {
        "by": usage.by,
        "name": usage.name,
        "sandboxes": f"{usage.sandboxes:,}",
        "time": str(timedelta(seconds=round(usage.seconds))),
        "CPU hours": f"{usage.cpu_hours:,.2f}",
        "memory GiB hours": f"{usage.memory_gib_hours:,.2f}",
    }
    return row if usage.cost is None else {**row, f"cost in {currency}": f"{usage.cost:,.2f}"}


def _write_csv(path: Path, report: UsageReport) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Usage.model_fields))
    writer.writeheader()
    writer.writerows(usage.model_dump() for usage in (*report.usages, report.total))
    path.write_text(text.getvalue(), encoding="utf-8")


def _line(report: UsageReport) -> str:
    total = report.total
    cost = f", {total.cost:,.2f} {report.currency}" if total.cost is not None else ""
    lasted = timedelta(seconds=round(total.seconds))
    return (
        f"{total.sandboxes:,} sandboxes for {lasted}: {total.cpu_hours:,.2f} CPU hours, "
        f"{total.memory_gib_hours:,.2f} GiB hours{cost}"
    )


def _summary(report: UsageReport, region: str) -> str:
    span = f"{report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M %Z}"
    lines = [f"**{region}, {span}**: {_line(report)}."]
    if report.total.unsized:
        lines.append(
            f"- {report.total.unsized:,} of them have no CPU and memory hours: neither they nor their tool have a size."
        )
    if len(report.usages) > MOST_ROWS:
        lines.append(f"- Shown here: {MOST_ROWS:,} of {len(report.usages):,} rows.")
    if report.csv:
        lines.append(f"- The whole table: `{report.csv}`")
    return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()
