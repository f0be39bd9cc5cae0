"""Make a tool match its spec: create it, update it in place if AGS can, otherwise replace it.

A tool is compared with its spec by a tag, see `ags_flows.lifecycle.tool_marks`. A tool without that tag was created by
another program: it is used unchanged if its known fields match the spec; otherwise an error is raised.
"""

from __future__ import annotations

import time
from typing import Literal

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import ConfigurationError, ConflictError
from ags_flows.lifecycle.create_once import create_tool_once, tool_named, wait_deleted
from ags_flows.lifecycle.tool_marks import CHANGEABLE, CONTAINER, SPEC_TAG, Difference, difference, marked
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import CustomConfiguration, EnsuredTool, Instance, Tool, ToolSpec
from ags_flows.ownership import IN_USE, MANAGED_BY, MANAGED_BY_KEY, Step

INTERVAL = 1.0
NAMED_IN_MESSAGES = 3


def ensure(
    control: ControlPlane, spec: ToolSpec, step: Step, *, replace: bool, drain: float, timeout: float
) -> EnsuredTool:
    """Return the tool of the spec's name once it is ACTIVE and matches the spec.

    Args:
        control: The control plane.
        spec: The tool, with the defaults of the configuration.
        step: The step.
        replace: Whether the tool may be deleted and created again if AGS cannot update a field.
        drain: Seconds to wait for the tool's instances to end before it is replaced.
        timeout: Seconds to wait until it is ACTIVE.

    Raises:
        ConfigurationError: The tool differs, and may not be updated or replaced.
        ConflictError: The tool has to be replaced, but instances still use it.
        ToolFailedError: The tool did not become ACTIVE.
    """
    existing = tool_named(control, spec.name)
    if existing is None:
        try:
            return _create(control, spec, step, "created", (), timeout)
        except ConflictError:
            # Another flow created the tool concurrently, perhaps with the same spec.
            existing = tool_named(control, spec.name)
            if existing is None:
                raise
    found = difference(existing, spec)
    ours = found.known or existing.tags.get(MANAGED_BY_KEY) == MANAGED_BY
    if (found.changeable or found.fixed) and not ours:
        raise ConfigurationError(
            f"Tool {existing.name!r} ({existing.id}) differs from the spec in {_listed(found)}, and was not created by "
            "ags_flows.",
            hint="Change the spec, give it another name, or delete the tool.",
        )
    broken = existing.status == "FAILED"
    if found.fixed or broken:
        reason = ", ".join(found.fixed) or "it is FAILED"
        if not replace:
            raise ConfigurationError(
                f"Tool {existing.name!r} ({existing.id}) has to be replaced: {reason} cannot be changed in place.",
                hint="Allow it with replace=True, or give the spec another name.",
            )
        delete_drained(control, existing, drain=drain, timeout=timeout)
        return _create(control, spec, step, "replaced", found.changeable + found.fixed, timeout)
    active = wait_tool_active(control, existing.id, timeout=timeout)
    if not found.changeable and (found.known or not ours):
        return _ensured(active, "found", ())
    _update(control, active, marked(spec), found)
    changed = found.changeable or ("unreported fields",)
    return _ensured(wait_tool_active(control, existing.id, timeout=timeout), "updated", changed)


def delete_drained(control: ControlPlane, tool: Tool, *, drain: float, timeout: float) -> None:
    """Wait for a tool's instances to end, delete the tool, and wait for the deletion.

    Args:
        control: The control plane.
        tool: The tool.
        drain: Seconds to wait for the instances.
        timeout: Seconds to wait for the deletion.

    Raises:
        ConflictError: Instances still use the tool after `drain` seconds.
        WaitTimeoutError: The tool is still being deleted after `timeout` seconds.
    """
    deadline = time.monotonic() + drain
    while users := users_of(control, tool):
        if time.monotonic() >= deadline:
            shown = ", ".join(f"{user.id} ({user.status})" for user in users[:NAMED_IN_MESSAGES])
            more = f" and {len(users) - NAMED_IN_MESSAGES} more" if len(users) > NAMED_IN_MESSAGES else ""
            raise ConflictError(
                f"Tool {tool.name!r} ({tool.id}) is in use by {shown}{more}.",
                hint="Stop them (stop_instance), or wait for their end with drain=seconds.",
                code="ResourceInUse.SandboxTool",
            )
        time.sleep(min(INTERVAL, max(0.0, deadline - time.monotonic())))
    control.delete_tool(tool.id)
    wait_deleted(control, tool, timeout)


def users_of(control: ControlPlane, tool: Tool) -> list[Instance]:
    """Return the instances that prevent the deletion of a tool."""
    return [one for one in control.list_instances(tool=tool.id) if one.status in IN_USE]


def _create(
    control: ControlPlane,
    spec: ToolSpec,
    step: Step,
    outcome: Literal["created", "replaced"],
    changed: tuple[str, ...],
    timeout: float,
) -> EnsuredTool:
    created, _ = create_tool_once(control, spec, step)
    return _ensured(wait_tool_active(control, created.id, timeout=timeout), outcome, changed)


def _update(control: ControlPlane, tool: Tool, spec: ToolSpec, found: Difference) -> None:
    """Send the fields that differ, or all fields if the differences are not known."""
    names = set(found.changeable) if found.known else set(CHANGEABLE)
    container = {name: getattr(spec, name) for name in CONTAINER}
    kept = {name: value for name, value in tool.tags.items() if name != SPEC_TAG}
    control.update_tool(
        tool.id,
        description=spec.description if "description" in names else None,
        tags={**kept, **spec.tags},
        network=spec.network if "network" in names else None,
        # AGS replaces the whole container configuration, so all of its fields are sent.
        custom=CustomConfiguration(**container) if names & set(CONTAINER) and any(container.values()) else None,
        computer=spec.computer if "computer" in names else None,
    )


def _ensured(tool: Tool, outcome: str, changed: tuple[str, ...]) -> EnsuredTool:
    return EnsuredTool(**tool.model_dump(), outcome=outcome, changed=changed)  # type: ignore[arg-type]


def _listed(found: Difference) -> str:
    return ", ".join(found.changeable + found.fixed)
