"""Sandboxes: which there are, whose they are, a look into one, and the end of one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from prefect.utilities.urls import url_for

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import open_plane
from ags_flows.models import ExecResult, Instance
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

COLUMNS = ("instance", "state", "tool", "flow run", "age", "ends in")
Writer = Callable[[str], object]


def list_sandboxes(every: bool, config: AGSConfig | None = None) -> list[dict[str, Any]]:
    """Return the live instances that this package started, or all that AGS lists, the oldest first."""
    known = (config or AGSConfig()).control_plane().list_instances()
    ours = [one for one in known if one.status in LIVE and one.metadata.get(MANAGED_BY_KEY) == MANAGED_BY]
    now = datetime.now(timezone.utc)
    return [_row(one, now) for one in sorted(known if every else ours, key=lambda one: one.created_at or now)]


def execute_in(
    instance: str, command: str, user: str | None, timeout: float, out: Writer | None, err: Writer | None
) -> ExecResult:
    """Run a command in an instance, its output to two writers as it comes."""
    plane = open_plane(AGSConfig().connection(), instance).plane
    return plane.run(command, user=user, timeout=timeout, on_stdout=out, on_stderr=err)


def stop_sandbox(instance: str) -> None:
    """Stop an instance for good."""
    control = AGSConfig().control_plane()
    control.get_instance(instance)
    control.stop_instance(instance)


def _row(one: Instance, now: datetime) -> dict[str, Any]:
    run_id = one.metadata.get(FLOW_RUN, "")
    left = (one.expires_at - now).total_seconds() if one.expires_at and one.status in LIVE else None
    age = (now - one.created_at).total_seconds() if one.created_at else None
    return {
        "instance": one.id,
        "state": f"{one.status} ({one.stop_reason})" if one.stop_reason else one.status,
        "tool": one.tool_name,
        "flow run": one.metadata.get(FLOW_RUN_NAME) or one.metadata.get(OWNER_HOST) or "",
        "flow run id": run_id,
        "run url": (url_for("flow-run", obj_id=run_id) or "") if run_id else "",
        "deployment": one.metadata.get(DEPLOYMENT, ""),
        "owner": ":".join(filter(None, (one.metadata.get(OWNER_HOST), one.metadata.get(OWNER_PID)))),
        "age": _duration(age),
        "ends in": _duration(left),
        "created at": one.created_at,
        "expires at": one.expires_at,
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
