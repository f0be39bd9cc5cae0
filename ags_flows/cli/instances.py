"""The sandboxes of an account as an operator sees them, a command inside of one, and the end of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from prefect.utilities.urls import url_for
from rich.console import Console

from ags_flows.blocks import AGSConfig
from ags_flows.cli.listing import Column, Row, Writer, text_of
from ags_flows.cloud.data_planes import open_plane
from ags_flows.errors import ConfigurationError, NotFoundError
from ags_flows.models import ExecResult, Instance
from ags_flows.models.checks import check_name
from ags_flows.ownership import (
    DEPLOYMENT,
    FLOW_RUN,
    FLOW_RUN_NAME,
    LIVE,
    MANAGED_BY,
    MANAGED_BY_KEY,
    OWNER_HOST,
    OWNER_PID,
)

WHOLE_ID = 20
"""Characters from which on an id is taken as it is, without a list of all instances."""

SHORT_ID = 8
"""Characters of an id on a terminal that has no room for all of it, or more if they are not unique."""

WIDE = 120
"""Columns of a terminal that has room for whole ids."""


def list_sandboxes(every: bool, config: AGSConfig) -> list[dict[str, Any]]:
    """Return the live instances that this package started, or all that AGS lists, the oldest first."""
    known = config.control_plane().list_instances()
    ours = [one for one in known if one.status in LIVE and one.metadata.get(MANAGED_BY_KEY) == MANAGED_BY]
    now = datetime.now(timezone.utc)
    return [_row(one, now) for one in sorted(known if every else ours, key=lambda one: one.created_at or now)]


def columns_for(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a list of sandboxes. A narrow terminal has the first characters of ids, and no tools."""
    ids = [str(row["instance_id"]) for row in rows]
    console, length = Console(), SHORT_ID
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    shortened = console.is_terminal and console.width < WIDE
    return [
        Column("instance_id", "instance", text=lambda one: one[:length] if shortened else one, whole=True),
        Column("status", style=_style_of, whole=True),
        # What the name of a flow run shows is worth more, and often has the tool in it.
        *([] if shortened else [Column("tool_name", "tool")]),
        Column("flow_run_name", "flow run", link="flow_run_url"),
        Column("age_seconds", "age", text=_duration, whole=True),
        Column("ends_in_seconds", "ends in", text=_duration, whole=True),
    ]


def find_instance(config: AGSConfig, reference: str) -> str:
    """Return the id of an instance from its first characters. If several match, only live ones count.

    Raises:
        NotFoundError: No id begins with them.
        ConfigurationError: Several do, or there are no characters.
    """
    check_name(reference, "instance")
    if len(reference) >= WHOLE_ID:
        return reference
    found = [one for one in config.control_plane().list_instances() if one.id.startswith(reference)]
    chosen = [one for one in found if one.status in LIVE] or found
    exact = [one for one in found if one.id == reference]
    if not chosen:
        raise NotFoundError(
            f"There is no instance {reference!r}, and none whose id begins so.",
            hint="`ags-flows ps --all` lists all instances.",
        )
    if len(chosen) > 1 and not exact:
        ids = ", ".join(one.id for one in chosen[:5])
        raise ConfigurationError(
            f"instance: {len(chosen)} ids begin with {reference!r}: {ids}{', ...' if len(chosen) > 5 else ''}.",
            hint="Give more characters.",
        )
    return (exact or chosen)[0].id


def execute_in(
    config: AGSConfig,
    instance: str,
    command: str,
    user: str | None,
    timeout: float,
    out: Writer | None,
    err: Writer | None,
) -> ExecResult:
    """Run a command in an instance, its output streamed to two writers."""
    plane = open_plane(config.connection(), instance).plane
    return plane.run(command, user=user, timeout=timeout, on_stdout=out, on_stderr=err)


def stop_sandbox(config: AGSConfig, instance: str) -> None:
    """Stop an instance permanently."""
    control = config.control_plane()
    control.get_instance(instance)
    control.stop_instance(instance)


def _row(one: Instance, now: datetime) -> dict[str, Any]:
    run_id = one.metadata.get(FLOW_RUN, "")
    return {
        "instance_id": one.id,
        "status": one.status,
        "stop_reason": one.stop_reason or "",
        "tool_id": one.tool_id,
        "tool_name": one.tool_name,
        "flow_run_name": one.metadata.get(FLOW_RUN_NAME) or one.metadata.get(OWNER_HOST) or "",
        "flow_run_id": run_id,
        "flow_run_url": (url_for("flow-run", obj_id=run_id) or "") if run_id else "",
        "deployment_id": one.metadata.get(DEPLOYMENT, ""),
        "owner_host": one.metadata.get(OWNER_HOST, ""),
        "owner_pid": int(pid) if (pid := one.metadata.get(OWNER_PID, "")).isdecimal() else None,
        "age_seconds": int((now - one.created_at).total_seconds()) if one.created_at else None,
        "ends_in_seconds": (
            max(0, int((one.expires_at - now).total_seconds())) if one.expires_at and one.status in LIVE else None
        ),
        "created_at": one.created_at,
        "expires_at": one.expires_at,
    }


def _style_of(status: Any) -> str:
    if status == "RUNNING":
        return "green"
    return "dim" if status not in LIVE else "yellow"


def _duration(seconds: Any) -> str:
    """Return seconds as 4:05, or 3 h 20 m."""
    if seconds is None:
        return text_of(None)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"
