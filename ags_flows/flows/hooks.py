"""Hooks for flows that use sandboxes. Prefect may call them in another process: they find sandboxes by metadata."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import AGSFlowsError, ConflictError
from ags_flows.flows.given_blocks import given_block, given_config
from ags_flows.job import SandboxJob
from ags_flows.models import Instance, Tool
from ags_flows.ownership import FLOW_RUN, IN_USE, KEPT, LIVE, MANAGED_BY, MANAGED_BY_KEY, flow_runs_of, is_ours
from ags_flows.run.events import emit
from ags_flows.run.logs import Logger

THREADS = 8
TOOL_PATIENCE = 20.0
"""Seconds, in total, for the instances of the run's tools to be STOPPED. AGS refuses to delete a tool before."""

LOOK_EVERY = 0.5


def stop_sandboxes(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop every live instance of a flow run, and delete the tools that it made for itself.

    Use it for `on_cancellation`, and for `on_crashed` of flows that are never retried. An instance that cannot be
    stopped is logged and left to its lease, a tool that cannot be deleted is left to the reaper.

    Example:
        ```python
        @flow(on_cancellation=[stop_sandboxes])
        def nightly(): ...
        ```
    """
    logger = flow_run_logger(flow_run, flow)
    try:
        given = given_config(flow, flow_run, logger)
        config = given or AGSConfig()
        with closing(PacedControlPlane(config.connection())) as control:
            known = persistently(lambda: instances_of(control, str(flow_run.id)))
            # Those that are kept are not stopped.
            instances = [one for one in known if one.status in LIVE and not one.metadata.get(KEPT)]
            _stop_all(control, instances, flow_run, state, logger)
            tools = persistently(lambda: _tools_of(control, str(flow_run.id)))
            _delete_all(control, tools, logger)
    except AGSFlowsError as error:
        logger.warning("Sandboxes of this run are left to their lease: %s", error)
        return
    if given is None and not known and not tools:
        logger.warning(
            "No sandboxes of this run to stop: none found in %s. The run's parameters name no AGSConfig, so that the "
            "account and the region of this process's environment were used.",
            config.region,
        )


def stop_sandboxes_if_asked(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop the instances of a crashed run whose parameter `on_crash`, or that of its job, is `stop`.

    Others wait for a retry.
    """
    job = given_block(SandboxJob, flow, flow_run, flow_run_logger(flow_run, flow))
    if (job.on_crash if job is not None else flow_run.parameters.get("on_crash")) == "stop":
        stop_sandboxes(flow, flow_run, state)


def instances_of(control: ControlPlane, flow_run_id: str) -> list[Instance]:
    """Return the instances that a flow run, or a flow run nested in it, started, also those that have ended."""
    return [
        one for one in control.list_instances() if is_ours(one.metadata) and flow_run_id in flow_runs_of(one.metadata)
    ]


def _stop_all(
    control: ControlPlane, instances: list[Instance], flow_run: FlowRun, state: State[Any], logger: Logger
) -> None:
    def stop(instance: Instance) -> AGSFlowsError | None:
        close_plane(control.connection, instance.id)
        try:
            persistently(lambda: control.stop_instance(instance.id))
        except AGSFlowsError as error:
            return error
        return None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="ags-hook") as pool:
        for instance, error in zip(instances, pool.map(stop, instances), strict=True):
            if error is not None:
                logger.warning("Instance %s could not be stopped and is left to its lease: %s", instance.id, error)
                continue
            logger.info("Stopped instance %s, since the run is %s", instance.id, (state.name or "over").lower())
            emit(
                "instance",
                instance.id,
                "stopped",
                tool=instance.tool_name,
                flow_run_id=str(flow_run.id),
                flow_run_name=flow_run.name or "",
            )


def _tools_of(control: ControlPlane, flow_run_id: str) -> list[Tool]:
    """Return the tools that were made for exactly this flow run."""
    return control.list_tools(tags={MANAGED_BY_KEY: MANAGED_BY, FLOW_RUN: flow_run_id})


def _delete_all(control: ControlPlane, tools: list[Tool], logger: Logger) -> None:
    """Delete tools, each when its instances are STOPPED; what takes too long is left to the reaper."""
    deadline = time.monotonic() + TOOL_PATIENCE
    for tool in tools:
        try:
            for users in _users_until(control, tool, deadline):
                if not users:
                    break
            else:
                logger.warning(
                    "Tool %s is left to the reaper: after %g s it is still in use by %s.",
                    tool.name,
                    TOOL_PATIENCE,
                    ", ".join(f"{user.id} ({user.status})" for user in users[:3]),
                )
                continue
            persistently(lambda: control.delete_tool(tool.id), _until(deadline))  # noqa: B023
            logger.info("Deleted tool %s", tool.name)
        except ConflictError as error:
            logger.info("Tool %s is left to the reaper, since it is in use: %s", tool.name, error)
        except AGSFlowsError as error:
            logger.warning("Tool %s could not be deleted and is left to the reaper: %s", tool.name, error)


def _users_until(control: ControlPlane, tool: Tool, deadline: float) -> Iterator[list[Instance]]:
    """Yield the instances that keep a tool from being deleted, again and again until the deadline, at least once."""
    while True:
        known = persistently(lambda: control.list_instances(tool=tool.id), _until(deadline))
        yield [one for one in known if one.status in IN_USE]
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(LOOK_EVERY, left))


def _until(deadline: float) -> Backoff:
    return Backoff(patience=max(0.0, deadline - time.monotonic()))
