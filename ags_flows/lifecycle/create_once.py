"""Create a tool or start an instance once, whatever happens to the answer.

A creation is known by its identity: the ClientToken derives from it and the resource carries it. Whoever is not sure to
be the first looks for what exists before creating, and a refused duplicate is looked up and adopted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError, ConflictError, DuplicateRequestError, InstanceFailedError, ToolFailedError
from ags_flows.models import Instance, Tool, ToolSpec
from ags_flows.ownership import LIVE, MANAGED_BY, Identity, Owner, generation_of, label

IDENTITY_TAG = "ags-flows-identity"
GENERATIONS = 20
"""How many dead instances of one identity are stepped over before it is called a fault."""

_NAME_TAKEN = "InvalidParameterValue.SandboxTool"
_LOOKS = 20
_LOOKS_FOR_A_TOOL = 3
_T = TypeVar("_T")


def start_once(
    control: ControlPlane,
    identity: Identity,
    owner: Owner,
    start: Callable[[str, dict[str, str]], Instance],
    *,
    tool: str | None = None,
    first: bool = False,
    generation: int = 0,
) -> tuple[Instance, bool]:
    """Start an instance, or adopt the live one that an earlier attempt of the same step started.

    Args:
        control: The control plane.
        identity: The step.
        owner: Whose it will be.
        start: Starts with a ClientToken and metadata; called at most once a generation.
        tool: Narrows the search for earlier ones to a tool's id.
        first: The caller knows that no instance of this identity lives: nothing is looked up beforehand.
        generation: The first one that was never used, where the caller knows that.

    Returns:
        The instance, and whether it was adopted.

    Raises:
        InstanceFailedError: Every generation is dead already, which only a fault can explain.
    """
    if not first:
        live, generation = find_instances(control, identity, tool=tool)
        if live:
            return live, True
    for current in range(generation, generation + GENERATIONS):
        metadata = label(identity, owner, datetime.now(timezone.utc), current)
        try:
            instance = start(identity.client_token(current), metadata)
        except DuplicateRequestError:
            adopted = _look(lambda: find_instances(control, identity, tool=tool)[0])
            if adopted:
                return adopted, True
            continue
        if instance.status in LIVE:
            # A replayed ClientToken answers with the instance that it made the first time.
            return instance, False
    raise InstanceFailedError(
        f"{GENERATIONS} instances of the same step have all ended at once.",
        hint="Look at their StopReason with `ags-flows ps --all`.",
    )


def find_instances(
    control: ControlPlane, identity: Identity, *, tool: str | None = None
) -> tuple[Instance | None, int]:
    """Return the live instance that carries the identity, and the first generation that was never used."""
    known = control.list_instances(tool=tool, metadata={"identity": identity.key})
    used = [generation_of(instance.metadata) for instance in known]
    live = [instance for instance in known if instance.status in LIVE]
    newest = max(live, key=lambda instance: generation_of(instance.metadata), default=None)
    return newest, max(used, default=-1) + 1


def create_tool_once(control: ControlPlane, spec: ToolSpec, identity: Identity) -> tuple[Tool, bool]:
    """Create a tool, or adopt the one that an earlier attempt of the same step created.

    Returns:
        The tool, and whether it was adopted.

    Raises:
        ConflictError: A tool of that name exists and is not this step's.
        ToolFailedError: Every generation is gone already, which only a fault can explain.
    """
    tags = {**spec.tags, "managed-by": MANAGED_BY, IDENTITY_TAG: identity.key}
    labelled = spec.model_copy(update={"tags": tags})
    for generation in range(GENERATIONS):
        try:
            created = control.create_tool(labelled, client_token=identity.client_token(generation))
        except AGSFlowsError as error:
            if not isinstance(error, ConflictError) and error.code != _NAME_TAKEN:
                raise
            existing = _adopt_tool(control, spec.name, identity, error)
            if existing is None:
                # The token is used up, and what it made is gone.
                continue
            return existing, True
        # A replayed ClientToken answers with the tool that it made, also when that was deleted since: a run that
        # failed and cleaned up is retried with a tool of the next generation.
        found = _look(lambda: control.list_tools(ids=[created]), looks=_LOOKS_FOR_A_TOOL)  # noqa: B023
        if found and found[0].status != "DELETING":
            return found[0], False
    raise ToolFailedError(f"{GENERATIONS} tools of the same step are all gone.", hint="Give the tool another name.")


def _adopt_tool(control: ControlPlane, name: str, identity: Identity, error: AGSFlowsError) -> Tool | None:
    """Return the tool of a name that is taken, if it is this step's; None after a duplicate of what is gone."""
    existing = _look(lambda: _tool_named(control, name), looks=_LOOKS_FOR_A_TOOL)
    if existing is None:
        if isinstance(error, DuplicateRequestError):
            return None
        raise error
    if existing.tags.get(IDENTITY_TAG) != identity.key:
        raise ConflictError(
            f"There is a tool named {name!r} already ({existing.id}, {existing.status}).",
            hint="Pass its name instead of a ToolSpec to use it, call ensure_tool, or choose another name.",
            code=error.code,
            request_id=error.request_id,
        ) from error
    return existing


def _tool_named(control: ControlPlane, name: str) -> Tool | None:
    found = control.list_tools(name=name)
    return found[0] if found else None


def _look(find: Callable[[], _T | None], looks: int = _LOOKS) -> _T | None:
    """Look repeatedly: what was just created may not be listed yet, and its request may still be on its way."""
    for attempt in range(looks):
        if found := find():
            return found
        if attempt + 1 < looks:
            time.sleep(0.5)
    return None
