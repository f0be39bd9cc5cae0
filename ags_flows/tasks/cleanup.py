"""The task that ends what a run has started."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import AGSFlowsError, ConflictError
from ags_flows.lifecycle.ensure_tool import users_of
from ags_flows.lifecycle.waiting import wait_instance_status
from ags_flows.models import CleanupReport, Instance, Tool
from ags_flows.ownership import LIVE
from ags_flows.run.events import tell_instance, tell_tool
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.instances import instance_id
from ags_flows.tasks.tools import tool_id

BACKOFF = Backoff(attempts=6, first_pause=0.3)
STOP_TIMEOUT = 60.0
"""Seconds to wait until an instance is STOPPED: its tool cannot be deleted before."""


@sandbox_task("cleanup", "instance")
def cleanup(
    instance: Instance | str | None = None, tool: Tool | str | None = None, config: AGSConfig | str | None = None
) -> CleanupReport:
    """Stop an instance and delete a tool, whichever are given, without raising errors.

    What cannot be ended is logged and reported, never raised: a job that succeeded stays a success, and the lease
    ends the sandbox later.

    Args:
        instance: To stop.
        tool: To delete afterwards.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        What was stopped and deleted, and what went wrong.

    Example:
        ```python
        tool = ensure_tool(ToolSpec(name="etl", image="python:3.11"))
        report = cleanup(start_instance(tool), tool)
        assert not report.problems
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    stopped: str | None = None
    deleted: str | None = None
    problems: list[str] = []
    if instance is not None:
        reference = instance_id(instance)
        close_plane(config.connection(), reference)
        if _attempt(lambda: control.stop_instance(reference), problems):
            stopped = reference
            tell_instance("stopped", instance)
            if tool is not None:
                wait = partial(wait_instance_status, control, reference, goal="STOPPED", timeout=STOP_TIMEOUT)
                _attempt(wait, problems)
    # An instance that goes on keeps its tool.
    if tool is not None and (instance is None or stopped):
        name = tool_id(tool)
        used_by: list[str] = []
        if _attempt(lambda: used_by.extend(_delete_unless_used(control, name)), problems):
            if used_by:
                run_logger().info("Tool %s is kept: it is used by %s", name, ", ".join(used_by[:3]))
            else:
                deleted = name
                tell_tool("deleted", tool)
    for problem in problems:
        run_logger().warning("Cleanup: %s It is left to the lease and the reaper.", problem)
    if stopped or deleted:
        done = [f"stopped {stopped}"] * bool(stopped) + [f"deleted {deleted}"] * bool(deleted)
        run_logger().info("Cleaned up: %s", ", ".join(done))
    return CleanupReport(instance_id=stopped, tool_id=deleted, problems=tuple(problems))


@sandbox_task("cleanup", "instance")
def end_session(
    instance: Instance | None = None,
    tool: Tool | str | None = None,
    *,
    may_stop: Callable[[], bool],
    config: AGSConfig,
) -> CleanupReport:
    """End what a session opened, as `cleanup` does, unless a later attempt works in its sandbox.

    Args:
        instance: To stop.
        tool: To delete afterwards.
        may_stop: Records in the sandbox that it is stopped, and returns False if a later attempt has it. It is asked
            here, and not before: a run that is to be suspended starts no task run, and goes on in its sandbox.
        config: Where AGS is.
    """
    if not may_stop():
        return CleanupReport()
    return cleanup.fn(instance, tool, config=config)


def _delete_unless_used(control: ControlPlane, name: str) -> list[str]:
    """Delete a tool, or return the ids of the live instances that use it: their sessions delete it later."""
    try:
        control.delete_tool(name)
    except ConflictError:
        used_by = [one.id for one in users_of(control, control.get_tool(name)) if one.status in LIVE]
        if not used_by:
            raise
        return used_by
    return []


def _attempt(action: Callable[[], object], problems: list[str]) -> bool:
    try:
        persistently(action, BACKOFF, repeat=lambda error: error.retryable or isinstance(error, ConflictError))
    except AGSFlowsError as error:
        problems.append(str(error))
        return False
    return True
