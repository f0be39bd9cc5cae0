"""Create a tool, an instance or a snapshot once, whatever happens to the response.

A creation carries the ClientToken of its call: a repeated request gets what the first one made. What it made may be
dead since; then the next generation's token makes another one. Nothing here takes anything over from an earlier
attempt but snapshots: see `ags_flows.lifecycle.open_sandbox` for instances. A tool is found by its name and its spec.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol, TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.retry import Backoff, look, persistently
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    DuplicateRequestError,
    InstanceFailedError,
    NotFoundError,
    RequestInProgressError,
    ToolFailedError,
    WaitTimeoutError,
)
from ags_flows.lifecycle.tool_marks import is_as_specified, marked
from ags_flows.models import Instance, Snapshot, Tool, ToolSpec
from ags_flows.ownership import (
    FAMILY,
    GENERATION,
    HOLDER,
    LIVE,
    MANAGED_BY,
    MANAGED_BY_KEY,
    Holder,
    Owner,
    Relation,
    Step,
    holder_of,
    label,
    relation,
)

GENERATIONS = 20
"""How many dead resources of one call are stepped over before it is called a fault."""

IN_PROGRESS = Backoff(attempts=None, patience=300.0, first_pause=1.0, longest_pause=5.0)
"""How long a request is repeated whose first sending AGS still executes: an image may have to be pulled."""

DELETION_TIMEOUT = 120.0
"""Seconds to wait until a tool that is being deleted is gone."""

_NAME_TAKEN = "InvalidParameterValue.SandboxTool"
_LOOKS = 20
_LOOKS_FOR_A_TOOL = 3
_INTERVAL = 0.5
_T = TypeVar("_T")


class Start(Protocol):
    """Starts an instance with a ClientToken and metadata."""

    def __call__(self, client_token: str, metadata: dict[str, str]) -> Instance:
        """Start it."""
        ...


def start_once(
    control: ControlPlane,
    step: Step,
    owner: Owner,
    start: Start,
    *,
    tool: str | None = None,
    lease: int | None = None,
) -> Instance:
    """Start an instance for a call. A repeated call gets the instance that its first request started.

    Args:
        control: The control plane.
        step: The step.
        owner: The run and the process.
        start: Sends the request.
        tool: Narrows the search for what a refused duplicate made: a tool's id or name.
        lease: Seconds, where the owner renews a lease.

    Raises:
        InstanceFailedError: Each instance that this call started is dead, which only a fault can explain.
    """
    for generation in range(GENERATIONS):
        metadata = label(step, owner, datetime.now(timezone.utc), lease, generation)
        token = step.client_token(generation)
        try:
            instance: Instance | None = _when_executed(lambda: start(token, metadata))  # noqa: B023
        except DuplicateRequestError:
            instance = look(lambda: _mine(control, step, generation, tool), _LOOKS, _INTERVAL)  # noqa: B023
        if instance is not None and instance.status in LIVE:
            return instance
    raise InstanceFailedError(
        f"{GENERATIONS} instances of the same call have all ended immediately.",
        hint="Look at their StopReason with `ags-flows ps --all`.",
    )


def create_tool_once(control: ControlPlane, spec: ToolSpec, step: Step) -> tuple[Tool, bool]:
    """Create a tool, or find the one of the same name that this package made from an equal spec.

    A tool of that name that is being deleted is waited for; one that is FAILED is deleted and created again.

    Returns:
        The tool, and whether it was there before.

    Raises:
        ConflictError: A tool of that name exists, and is another one.
        ToolFailedError: Each tool that this call created is gone, which only a fault can explain.
    """
    labelled = marked(spec)
    for generation in range(GENERATIONS):
        token = step.client_token(generation)
        try:
            created = _when_executed(lambda: control.create_tool(labelled, client_token=token))  # noqa: B023
        except AGSFlowsError as error:
            if not isinstance(error, ConflictError) and error.code != _NAME_TAKEN:
                raise
            existing = _existing(control, spec, error)
            if existing is not None:
                return existing, True
            continue
        # A replayed ClientToken answers with the tool that it made, also when that was deleted since.
        found = look(lambda: _first(control.list_tools(ids=[created])), _LOOKS_FOR_A_TOOL, _INTERVAL)  # noqa: B023
        if found is not None and found.status != "DELETING":
            return found, False
    raise ToolFailedError(f"{GENERATIONS} tools of the same call are all gone.", hint="Give the tool another name.")


def create_snapshot_once(
    control: ControlPlane, step: Step, instance_id: str, *, name: str, memory: bool, tags: dict[str, str]
) -> Snapshot:
    """Create a snapshot for a call, or return the one that an earlier attempt of the step made of the same instance."""
    labels = {**tags, MANAGED_BY_KEY: MANAGED_BY, FAMILY: step.family, HOLDER: str(step.holder)}

    def made(by: Relation) -> Snapshot | None:
        for snapshot in control.list_snapshots():
            theirs = Holder.parse(snapshot.tags.get(HOLDER, ""))
            if snapshot.tags.get(FAMILY) != step.family or theirs is None or snapshot.status != "ACTIVE":
                continue
            if snapshot.instance_id == instance_id and relation(step.holder, theirs) == by:
                return snapshot
        return None

    if step.holder.is_retry and (found := made("superseded")):
        return found
    for generation in range(GENERATIONS):
        token = step.client_token(generation)
        try:
            snapshot: Snapshot | None = _when_executed(
                lambda: control.create_snapshot(
                    instance_id,
                    name=name,
                    memory=memory,
                    tags=labels,
                    client_token=token,  # noqa: B023
                )
            )
        except DuplicateRequestError:
            snapshot = look(lambda: made("same"), _LOOKS_FOR_A_TOOL, _INTERVAL)
        if snapshot is not None and snapshot.status not in ("DELETING", "DELETED"):
            return snapshot
    raise ConflictError(f"{GENERATIONS} snapshots of the same call are all deleted.", hint="Give it another name.")


def tool_named(control: ControlPlane, name: str) -> Tool | None:
    """Return the tool of a name, None where there is none; one that is being deleted is waited for."""
    try:
        found = control.get_tool(name)
    except NotFoundError:
        return None
    if found.status != "DELETING":
        return found
    wait_deleted(control, found, DELETION_TIMEOUT)
    return None


def wait_deleted(control: ControlPlane, tool: Tool, timeout: float) -> None:
    """Wait until AGS does not know a tool any more.

    Raises:
        WaitTimeoutError: It is still being deleted after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while control.list_tools(ids=[tool.id]):
        if time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"Tool {tool.name!r} ({tool.id}) is still being deleted after {timeout:g} s.", hint="Try again later."
            )
        time.sleep(_INTERVAL / 2)


def _existing(control: ControlPlane, spec: ToolSpec, error: AGSFlowsError) -> Tool | None:
    """Return the tool that has the name, where it is as the spec has it; None where the name is free again."""
    known = look(lambda: _first(control.list_tools(name=spec.name)), _LOOKS_FOR_A_TOOL, _INTERVAL)
    if known is None:
        if isinstance(error, DuplicateRequestError):
            # The token is used up, and what it made is gone.
            return None
        raise error
    if known.status != "DELETING" and not is_as_specified(known, spec):
        raise ConflictError(
            f"There is a tool named {spec.name!r} already ({known.id}, {known.status}).",
            hint="Pass its name instead of a ToolSpec to use it, call ensure_tool, or choose another name.",
            code=error.code,
            request_id=error.request_id,
        ) from error
    if known.status in ("DELETING", "FAILED"):
        control.delete_tool(known.id)
        wait_deleted(control, known, DELETION_TIMEOUT)
        return None
    return known


def _mine(control: ControlPlane, step: Step, generation: int, tool: str | None) -> Instance | None:
    """Return the instance of a generation that this very call started, dead or alive."""
    for instance in control.list_instances(tool=tool, metadata={FAMILY: step.family}):
        theirs = holder_of(instance.metadata)
        if theirs is not None and relation(step.holder, theirs) == "same":
            if instance.metadata.get(GENERATION, "0") == str(generation):
                return instance
    return None


def _when_executed(request: Callable[[], _T]) -> _T:
    """Send a request again, with the same token, while AGS still executes its first sending."""
    return persistently(request, IN_PROGRESS, repeat=lambda error: isinstance(error, RequestInProgressError))


def _first(tools: list[Tool]) -> Tool | None:
    return tools[0] if tools else None
