"""A tool as a spec has it: created, changed in place where AGS allows it, replaced where it does not.

What AGS answers of a tool is not what was sent: amounts have other units, defaults are filled in, digests resolved. So
each tool carries a tag with a short hash of every field that it was made from: equal hashes mean an equal spec,
whatever the answer looks like. A tool without that tag is somebody else's: it is taken as it is, or refused.
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
    """Return the tool of the spec's name, ACTIVE and as the spec has it.

    Args:
        control: The control plane.
        spec: The tool, with everything that a configuration adds.
        step: The step.
        replace: Whether a tool may be deleted and created anew for what AGS cannot change.
        drain: Seconds that a tool's instances have to end before it is replaced.
        timeout: Seconds to wait until it is ACTIVE.

    Raises:
        ConfigurationError: It differs, and may not be changed or replaced.
        ConflictError: It is to be replaced, and instances still use it.
        ToolFailedError: It failed to become ACTIVE.
    """
    existing = tool_named(control, spec.name)
    if existing is None:
        try:
            return _create(control, spec, step, "created", (), timeout)
        except ConflictError:
            # Another flow was faster, with the same wish perhaps.
            existing = tool_named(control, spec.name)
            if existing is None:
                raise
    found = difference(existing, spec)
    ours = found.known or existing.tags.get(MANAGED_BY_KEY) == MANAGED_BY
    if (found.changeable or found.fixed) and not ours:
        raise ConfigurationError(
            f"Tool {existing.name!r} ({existing.id}) differs from the spec in {_listed(found)}, and ags_flows did not "
            "make it.",
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
    changed = found.changeable or ("whatever AGS did not show",)
    return _ensured(wait_tool_active(control, existing.id, timeout=timeout), "updated", changed)


def delete_drained(control: ControlPlane, tool: Tool, *, drain: float, timeout: float) -> None:
    """Delete a tool once its instances have ended, and wait until AGS does not know it any more.

    Raises:
        ConflictError: Instances still use it when `drain` is over.
        WaitTimeoutError: It is still being deleted after `timeout` seconds.
    """
    deadline = time.monotonic() + drain
    while users := users_of(control, tool):
        if time.monotonic() >= deadline:
            shown = ", ".join(f"{user.id} ({user.status})" for user in users[:NAMED_IN_MESSAGES])
            more = f" and {len(users) - NAMED_IN_MESSAGES} more" if len(users) > NAMED_IN_MESSAGES else ""
            raise ConflictError(
                f"Tool {tool.name!r} ({tool.id}) is in use by {shown}{more}.",
                hint="Stop them (stop_instance), or let the call wait for their end with drain=seconds.",
                code="ResourceInUse.SandboxTool",
            )
        time.sleep(min(INTERVAL, max(0.0, deadline - time.monotonic())))
    control.delete_tool(tool.id)
    wait_deleted(control, tool, timeout)


def users_of(control: ControlPlane, tool: Tool) -> list[Instance]:
    """Return the instances that keep a tool from being deleted."""
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
    """Send what differs, or everything where nobody knows what does."""
    names = set(found.changeable) if found.known else set(CHANGEABLE)
    container = {name: getattr(spec, name) for name in CONTAINER}
    kept = {name: value for name, value in tool.tags.items() if name != SPEC_TAG}
    control.update_tool(
        tool.id,
        description=spec.description if "description" in names else None,
        tags={**kept, **spec.tags},
        network=spec.network if "network" in names else None,
        # A container is sent whole: what is left out of it would be lost.
        custom=CustomConfiguration(**container) if names & set(CONTAINER) and any(container.values()) else None,
        computer=spec.computer if "computer" in names else None,
    )


def _ensured(tool: Tool, outcome: str, changed: tuple[str, ...]) -> EnsuredTool:
    return EnsuredTool(**tool.model_dump(), outcome=outcome, changed=changed)  # type: ignore[arg-type]


def _listed(found: Difference) -> str:
    return ", ".join(found.changeable + found.fixed)
