"""What an operator does from a terminal, for the command line: look at sandboxes, look into one, stop it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from rich.table import Table

from ags_flows.blocks import AGSConfig
from ags_flows.execution.planes import open_plane
from ags_flows.models import Instance
from ags_flows.ownership import LIVE, MANAGED_BY

Writer = Callable[[str], object]


def list_sandboxes(every: bool) -> Table:
    """Return a table of the live instances that this package started, or of all that AGS lists."""
    config = AGSConfig()
    known = config.control_plane().list_instances()
    ours = [one for one in known if one.status in LIVE and one.metadata.get("managed-by") == MANAGED_BY]
    table = Table(title=f"Sandboxes in {config.region}", title_justify="left")
    # Ids are there to be copied: they are never folded.
    table.add_column("instance", no_wrap=True)
    for name in ("state", "tool", "flow run", "started", "ends in"):
        table.add_column(name, overflow="fold")
    now = datetime.now(timezone.utc)
    for one in sorted(known if every else ours, key=lambda one: one.created_at or now):
        owner = one.metadata.get("flow-run-name") or one.metadata.get("owner-host") or ""
        state = f"{one.status} ({one.stop_reason})" if one.stop_reason else one.status
        started = f"{one.created_at.astimezone():%H:%M:%S}" if one.created_at else ""
        table.add_row(one.id, state, one.tool_name, owner, started, _left(one, now))
    return table


def execute_in(instance: str, command: str, user: str | None, timeout: float, out: Writer, err: Writer) -> int:
    """Run a command in an instance, its output to two writers; return its exit code."""
    plane = open_plane(AGSConfig().connection(), instance).plane
    result = plane.run(
        command,
        user=user,
        timeout=timeout,
        on_stdout=out,
        on_stderr=err,
    )
    return result.exit_code


def stop_sandbox(instance: str) -> None:
    """Stop an instance for good."""
    control = AGSConfig().control_plane()
    control.get_instance(instance)
    control.stop_instance(instance)


def _left(instance: Instance, now: datetime) -> str:
    if instance.expires_at is None or instance.status not in LIVE:
        return ""
    seconds = max(0, int((instance.expires_at - now).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02d}"
