"""A tool as a spec has it: created, changed in place where AGS allows it, replaced where it does not.

What AGS answers of a tool is not what was sent: amounts have other units, defaults are filled in, digests resolved. So
each tool carries a tag with a short hash of every field that it was made from: equal hashes mean an equal spec,
whatever the answer looks like. A tool without that tag is somebody else's: it is taken as it is, or refused.
"""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import ConfigurationError, ConflictError, NotFoundError, WaitTimeoutError
from ags_flows.lifecycle.create_once import IDENTITY_TAG, create_tool_once
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import CONTAINER_FIELDS, CustomConfiguration, EnsuredTool, Instance, Tool, ToolSpec
from ags_flows.ownership import LIVE, Identity, fingerprint

SPEC_TAG = "ags-flows-spec"
INTERVAL = 1.0
NAMED_IN_MESSAGES = 3
MARK_LENGTH = 6

CONTAINER = (*CONTAINER_FIELDS, "resources")
CHANGEABLE = (*CONTAINER, "description", "network", "computer")
FIXED = ("type", "role_arn", "mounts", "logs", "default_timeout", "persistent")
OURS = ("managed-by", IDENTITY_TAG, SPEC_TAG)
"""Tags that say what this package knows of a tool: whoever replaces the tags keeps them."""


class Difference(NamedTuple):
    """What a tool has different from a spec, by the fields' names."""

    changeable: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    known: bool = True


def mark(spec: ToolSpec) -> str:
    """Return the tag's value: a hash of each field, in a fixed order."""
    fields = spec.model_dump(mode="json")
    return "v1:" + "".join(fingerprint(fields[name])[:MARK_LENGTH] for name in (*CHANGEABLE, *FIXED))


def difference(tool: Tool, spec: ToolSpec) -> Difference:
    """Compare a tool with a spec."""
    wanted, has = mark(spec), tool.tags.get(SPEC_TAG, "")
    shown = {
        "image": bool(spec.image) and bool(tool.image) and tool.image != spec.image,
        "type": tool.type != spec.type,
        "role_arn": bool(spec.role_arn) and tool.role_arn not in (None, spec.role_arn),
        "network": bool(tool.network_mode) and tool.network_mode != spec.network.mode,
    }
    names = (*CHANGEABLE, *FIXED)
    known = len(has) == len(wanted) and has.startswith("v1:")
    differs = {name for name, other in shown.items() if other}
    if known:
        pieces = range(len("v1:"), len(wanted), MARK_LENGTH)
        differs |= {
            name
            for name, at in zip(names, pieces, strict=True)
            if wanted[at : at + MARK_LENGTH] != has[at : at + MARK_LENGTH]
        }
    tags = ("tags",) if not spec.tags.items() <= tool.tags.items() else ()
    return Difference(
        tuple(name for name in CHANGEABLE if name in differs) + tags,
        tuple(name for name in FIXED if name in differs),
        known,
    )


def ensure(
    control: ControlPlane, spec: ToolSpec, identity: Identity, *, replace: bool, drain: float, timeout: float
) -> EnsuredTool:
    """Return the tool of the spec's name, ACTIVE and as the spec has it.

    Args:
        control: The control plane.
        spec: The tool, with everything that a configuration adds.
        identity: The step.
        replace: Whether a tool may be deleted and created anew for what AGS cannot change.
        drain: Seconds that a tool's instances have to end before it is replaced.
        timeout: Seconds to wait until it is ACTIVE.

    Raises:
        ConfigurationError: It differs, and may not be changed or replaced.
        ConflictError: It is to be replaced, and instances still use it.
        ToolFailedError: It failed to become ACTIVE.
    """
    marked = spec.model_copy(update={"tags": {**spec.tags, SPEC_TAG: mark(spec)}})
    existing = _named(control, spec.name)
    if existing is None:
        try:
            return _create(control, marked, identity, "created", (), timeout)
        except ConflictError:
            # Another flow was faster, with the same wish perhaps.
            existing = _named(control, spec.name)
            if existing is None:
                raise
    found = difference(existing, spec)
    ours = found.known or existing.tags.get("managed-by") == "ags-flows"
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
        return _create(control, marked, identity, "replaced", found.changeable + found.fixed, timeout)
    active = wait_tool_active(control, existing.id, timeout=timeout)
    if not found.changeable and (found.known or not ours):
        return _ensured(active, "found", ())
    _update(control, active, marked, found)
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
    deadline = time.monotonic() + timeout
    while control.list_tools(ids=[tool.id]):
        if time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"Tool {tool.name!r} ({tool.id}) is still being deleted after {timeout:g} s.", hint="Try again later."
            )
        time.sleep(INTERVAL / 4)


def users_of(control: ControlPlane, tool: Tool) -> list[Instance]:
    """Return the instances that keep a tool from being deleted."""
    return [one for one in control.list_instances(tool=tool.id) if one.status in LIVE or one.status == "STOPPING"]


def _create(
    control: ControlPlane,
    spec: ToolSpec,
    identity: Identity,
    outcome: Literal["created", "replaced"],
    changed: tuple[str, ...],
    timeout: float,
) -> EnsuredTool:
    created, _ = create_tool_once(control, spec, identity)
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


def _named(control: ControlPlane, name: str) -> Tool | None:
    """Return the tool of a name; one that is being deleted is waited out, for a while."""
    for _ in range(int(60 / INTERVAL)):
        try:
            found = control.get_tool(name)
        except NotFoundError:
            return None
        if found.status != "DELETING":
            return found
        time.sleep(INTERVAL)
    return None


def _ensured(tool: Tool, outcome: str, changed: tuple[str, ...]) -> EnsuredTool:
    return EnsuredTool(**tool.model_dump(), outcome=outcome, changed=changed)  # type: ignore[arg-type]


def _listed(found: Difference) -> str:
    return ", ".join(found.changeable + found.fixed)
