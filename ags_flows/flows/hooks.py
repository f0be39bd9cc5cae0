"""Hooks for flows that use sandboxes. Prefect may call them in another process: they find sandboxes by metadata."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import close_plane
from ags_flows.errors import AGSFlowsError
from ags_flows.job import SandboxJob
from ags_flows.models import Instance
from ags_flows.ownership import LIVE, is_ours
from ags_flows.run.events import emit

B = TypeVar("B", bound=Block)


def stop_sandboxes(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop every live instance of a flow run: for `on_cancellation`, and for `on_crashed` of flows never retried.

    Example:
        ```python
        @flow(on_cancellation=[stop_sandboxes])
        def nightly(): ...
        ```
    """
    logger = flow_run_logger(flow_run, flow)
    try:
        config = _config_of(flow_run)
        control = config.control_plane()
        for instance in sandboxes_of(control, str(flow_run.id)):
            close_plane(config.connection(), instance.id)
            control.stop_instance(instance.id)
            logger.info("Stopped instance %s, since the run is %s", instance.id, (state.name or "over").lower())
            emit(
                "instance",
                instance.id,
                "stopped",
                tool=instance.tool_name,
                flow_run_id=str(flow_run.id),
                flow_run_name=flow_run.name or "",
            )
    except AGSFlowsError as error:
        logger.log(logging.WARNING, "Sandboxes of this run are left to their lease: %s", error)


def stop_sandboxes_if_asked(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop the instances of a crashed run whose parameter `on_crash` is `stop`; others wait for a retry."""
    if flow_run.parameters.get("on_crash") == "stop":
        stop_sandboxes(flow, flow_run, state)


def sandboxes_of(control: ControlPlane, flow_run_id: str) -> list[Instance]:
    """Return the live instances of a flow run, or of one nested in another."""
    return [
        instance
        for instance in control.list_instances()
        if instance.status in LIVE
        and is_ours(instance.metadata)
        and flow_run_id in (instance.metadata.get("flow-run-id"), instance.metadata.get("subflow-run-id"))
    ]


def _config_of(flow_run: FlowRun) -> AGSConfig:
    """Return the run's own configuration where its parameters name one, or a job that has one, else the environment's.

    Parameters that came from code hold the configuration with masked keys, which count as empty.
    """
    config = _block(AGSConfig, flow_run.parameters.get("config"))
    if config is None and (job := _block(SandboxJob, flow_run.parameters.get("job"))):
        config = job.config
    return config or AGSConfig()


def _block(kind: type[B], given: Any) -> B | None:
    """Return a block as a parameter gives it: whole, by its fields, or by a reference to its document."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, dict):
        return None
    reference = given.get("$ref")
    if reference is None:
        return kind(**given)
    identifier = reference.get("block_document_id") if isinstance(reference, dict) else reference
    loaded = kind.load_from_ref({"block_document_id": identifier})
    if not isinstance(loaded, kind):
        raise AGSFlowsError(f"The block {identifier} is not a block of type {kind.get_block_type_slug()}.")
    return loaded
