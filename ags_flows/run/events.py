"""Prefect events for what happens to sandboxes: `ags.<kind>.<what>`, for the event feed and for automations."""

from __future__ import annotations

from typing import Any

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from ags_flows.models import Instance, Snapshot, Tool
from ags_flows.run.holder import owner


def tell_instance(what: str, instance: Instance | str, **payload: Any) -> None:
    """Emit `ags.instance.<what>` for the flow run that is executing; outside of flow runs, do nothing.

    Args:
        what: Such as `started`, in the past.
        instance: The instance, or its id.
        payload: More, JSON-like and without secrets.
    """
    if isinstance(instance, str):
        _tell("instance", instance, "", what, payload)
    else:
        _tell("instance", instance.id, instance.tool_name or instance.tool_id, what, payload)


def tell_tool(what: str, tool: Tool | str, **payload: Any) -> None:
    """Emit `ags.tool.<what>` for the flow run that is executing."""
    name = tool if isinstance(tool, str) else tool.name
    _tell("tool", name, "", what, payload)


def tell_snapshot(what: str, snapshot: Snapshot | str, **payload: Any) -> None:
    """Emit `ags.snapshot.<what>` for the flow run that is executing."""
    reference = snapshot if isinstance(snapshot, str) else snapshot.id
    _tell("snapshot", reference, "", what, payload)


def emit(
    kind: str,
    identifier: str,
    what: str,
    *,
    tool: str = "",
    flow_run_id: str = "",
    flow_run_name: str = "",
    payload: dict[str, Any] | None = None,
) -> None:
    """Emit an event about a resource of AGS, with its flow run and its tool as related resources.

    Args:
        kind: `instance`, `tool` or `snapshot`.
        identifier: Its id, or the name of a tool.
        what: What happened to it, in the past.
        tool: Its tool.
        flow_run_id: The flow run that it belongs to.
        flow_run_name: The name of that run.
        payload: More, JSON-like and without secrets.
    """
    related = []
    if flow_run_id:
        related.append(
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
                "prefect.resource.name": flow_run_name,
                "prefect.resource.role": "owner",
            }
        )
    if tool:
        related.append({"prefect.resource.id": f"ags.tool.{tool}", "prefect.resource.role": "tool"})
    emit_event(
        event=f"ags.{kind}.{what}",
        resource={"prefect.resource.id": f"ags.{kind}.{identifier}", "prefect.resource.name": identifier},
        related=related,
        payload=payload or {},
    )


def _tell(kind: str, identifier: str, tool: str, what: str, payload: dict[str, Any]) -> None:
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        # Prefect would start a server to emit it.
        return
    whose = owner()
    if whose.flow_run_id:
        emit(
            kind,
            identifier,
            what,
            tool=tool,
            flow_run_id=whose.flow_run_id,
            flow_run_name=whose.flow_run_name,
            payload=payload,
        )
