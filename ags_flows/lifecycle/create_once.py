"""Idempotent creation of tools, instances and snapshots: a lost response does not create a second one.

Each creation has the ClientToken of its call, so that a repeated request gets the resource of the first request. If
that resource has ended since, the token of the next generation creates another one. Instances of earlier attempts are
not taken over here: see `ags_flows.lifecycle.open_sandbox`. Existing tools are found by name and spec, and snapshots
of earlier attempts by their tags.
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
"""Number of dead resources of one call after which the creation fails."""

IN_PROGRESS = Backoff(attempts=None, patience=300.0, first_pause=1.0, longest_pause=5.0)
"""Backoff of a request that AGS still executes: AGS may have to pull an image."""

DELETION_TIMEOUT = 120.0
"""Seconds to wait until a tool is deleted."""

_NAME_TAKEN = "InvalidParameterValue.SandboxTool"
_LOOKS = 20
_LOOKS_FOR_A_TOOL = 3
_INTERVAL = 0.5
_T = TypeVar("_T")


class Start(Protocol):
    """Starts an instance with a ClientToken and metadata."""

    def __call__(self, client_token: str, metadata: dict[str, str]) -> Instance:
        """Start an instance."""
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
        owner: The flow run and the process.
        start: Sends the request.
        tool: Id or name of the tool. It limits the search for the instance of an earlier request.
        lease: Length of the lease in seconds; None without a lease.

    Raises:
        InstanceFailedError: All instances of this call ended immediately.
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
        f"{GENERATIONS} instances of the same call all ended immediately.",
        hint="Look at their StopReason with `ags-flows ps --all`.",
    )


def create_tool_once(control: ControlPlane, spec: ToolSpec, step: Step) -> tuple[Tool, bool]:
    """Create a tool, or return the tool of the same name that this package created from an equal spec.

    If a tool of that name is being deleted, wait for the deletion. If it is FAILED, delete it and create it again.

    Returns:
        The tool, and whether it existed before.

    Raises:
        ConflictError: A different tool of that name exists.
        ToolFailedError: All tools of this call were deleted immediately.
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
        # The response to a repeated ClientToken has the first tool, even if that was deleted since.
        found = look(lambda: _first(control.list_tools(ids=[created])), _LOOKS_FOR_A_TOOL, _INTERVAL)  # noqa: B023
        if found is not None and found.status != "DELETING":
            return found, False
    raise ToolFailedError(f"{GENERATIONS} tools of the same call were all deleted.", hint="Give the tool another name.")


def create_snapshot_once(
    control: ControlPlane, step: Step, instance_id: str, *, name: str, memory: bool, tags: dict[str, str]
) -> Snapshot:
    """Create a snapshot, or return the one that an earlier attempt of the step created of the same instance."""
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
    raise ConflictError(
        f"{GENERATIONS} snapshots of the same call were all deleted.", hint="Give the snapshot another name."
    )


def tool_named(control: ControlPlane, name: str) -> Tool | None:
    """Return the tool of a name, or None if there is none. Wait for a tool that is being deleted."""
    try:
        found = control.get_tool(name)
    except NotFoundError:
        return None
    if found.status != "DELETING":
        return found
    wait_deleted(control, found, DELETION_TIMEOUT)
    return None


def wait_deleted(control: ControlPlane, tool: Tool, timeout: float) -> None:
    """Wait until a tool is deleted.

    Raises:
        WaitTimeoutError: The tool is still being deleted after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while control.list_tools(ids=[tool.id]):
        if time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"Tool {tool.name!r} ({tool.id}) is still being deleted after {timeout:g} s.", hint="Try again later."
            )
        time.sleep(_INTERVAL / 2)


def _existing(control: ControlPlane, spec: ToolSpec, error: AGSFlowsError) -> Tool | None:
    """Return the tool of the same name if it matches the spec, or None if the name is free again."""
    known = look(lambda: _first(control.list_tools(name=spec.name)), _LOOKS_FOR_A_TOOL, _INTERVAL)
    if known is None:
        if isinstance(error, DuplicateRequestError):
            # The token was used, and the tool that it created was deleted.
            return None
        raise error
    if known.status != "DELETING" and not is_as_specified(known, spec):
        raise ConflictError(
            f"A different tool is named {spec.name!r} already ({known.id}, {known.status}).",
            hint="To use it, pass its name instead of a ToolSpec. Otherwise call ensure_tool or choose another name.",
            code=error.code,
            request_id=error.request_id,
        ) from error
    if known.status in ("DELETING", "FAILED"):
        control.delete_tool(known.id)
        wait_deleted(control, known, DELETION_TIMEOUT)
        return None
    return known


def _mine(control: ControlPlane, step: Step, generation: int, tool: str | None) -> Instance | None:
    """Return the instance of a generation that this call started, dead or alive; None if AGS does not list it."""
    for instance in control.list_instances(tool=tool, metadata={FAMILY: step.family}):
        theirs = holder_of(instance.metadata)
        if theirs is not None and relation(step.holder, theirs) == "same":
            if instance.metadata.get(GENERATION, "0") == str(generation):
                return instance
    return None


def _when_executed(request: Callable[[], _T]) -> _T:
    """Repeat a request with the same token while AGS still executes the first one."""
    return persistently(request, IN_PROGRESS, repeat=lambda error: isinstance(error, RequestInProgressError))


def _first(tools: list[Tool]) -> Tool | None:
    return tools[0] if tools else None
