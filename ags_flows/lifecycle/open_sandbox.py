"""Get a running sandbox for a step: take over the sandbox of an earlier attempt, or start a new one.

Sessions, batches, jobs and `AGSRuntime` all get their sandboxes here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import open_new_plane, open_plane
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.durable.claims import claim_instance, release_instance, superseded
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    InstanceFailedError,
    InstanceGoneError,
    NotFoundError,
    SupersededError,
    UnreachableError,
    WaitCancelledError,
    WaitTimeoutError,
)
from ags_flows.lifecycle.changes import resume
from ags_flows.lifecycle.create_once import start_once
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.models import Instance
from ags_flows.ownership import (
    CREATED_AT,
    FAMILY,
    LIVE,
    RESUMABLE,
    Holder,
    Owner,
    Step,
    held_by,
    holder_of,
    may_take_over,
    relation,
    take_over_order,
)

LOST = (InstanceGoneError, InstanceFailedError, NotFoundError, ConflictError, WaitTimeoutError)
"""Errors after which a candidate for a take-over is skipped and the next one is tried."""


SOON = 45.0
"""Seconds of life with which an instance gets its new lease before the claim: it may end while the claim is made."""


@dataclass(frozen=True)
class Launch:
    """The specification of a sandbox to get.

    Attributes:
        step: The step.
        owner: The flow run and the process.
        arguments: Arguments of `ControlPlane.start_instance`: `tool`, `custom`, `snapshot_id`, ...
        timeout: The instance's timeout in the format of AGS.
        lease: Length of the lease in seconds, if the caller renews the timeout as a lease.
        metadata: More metadata.
        startup_timeout: Seconds for each wait for a state.
        cancelled: Ends the waits within a second when set; nothing is started from then on.
    """

    step: Step
    owner: Owner
    arguments: dict[str, Any]
    timeout: str
    lease: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    startup_timeout: float = 300.0
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def tool(self) -> str | None:
        """Id or name of the tool."""
        tool: str | None = self.arguments.get("tool")
        return tool


class Opened(NamedTuple):
    """A sandbox, and whether it was taken over from an earlier attempt. One that was taken over is RUNNING."""

    instance: Instance
    taken_over: bool


def open_sandbox(
    control: ControlPlane,
    connection: Connection,
    launch: Launch,
    candidates: Iterable[Instance] | None = None,
    *,
    on_trouble: Callable[[str], None] = lambda text: None,
) -> Opened:
    """Take over or start a sandbox, and wait until it is RUNNING. Stop it if it does not become RUNNING.

    A session does this in two task runs instead: first `take_over_or_start`, then the wait.

    Args:
        control: The control plane.
        connection: Connection to the data plane, for claims.
        launch: The sandbox to get.
        candidates: Instances of earlier attempts. Default: they are listed.
        on_trouble: Called with a sentence for each candidate that cannot be taken over.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
        InstanceFailedError: The new sandbox did not start.
    """
    opened = take_over_or_start(control, connection, launch, candidates, on_trouble=on_trouble)
    if opened.instance.status == "RUNNING":
        return opened
    try:
        running = wait_instance_running(
            control, opened.instance.id, timeout=launch.startup_timeout, cancelled=launch.cancelled
        )
    except BaseException:
        with suppress(AGSFlowsError):
            persistently(lambda: control.stop_instance(opened.instance.id))
        raise
    return opened._replace(instance=running)


def take_over_or_start(
    control: ControlPlane,
    connection: Connection,
    launch: Launch,
    candidates: Iterable[Instance] | None = None,
    *,
    on_trouble: Callable[[str], None] = lambda text: None,
) -> Opened:
    """Take over or start a sandbox. A new one may still be STARTING.

    Args:
        control: The control plane.
        connection: Connection to the data plane, for claims.
        launch: The sandbox to get.
        candidates: Instances of earlier attempts. Default: they are listed.
        on_trouble: Called with a sentence for each candidate that cannot be taken over.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
    """
    if candidates is None:
        candidates = left_by_earlier_attempts(control, launch.step, launch.tool) if launch.step.holder.is_retry else ()
    for candidate in candidates:
        try:
            taken = take_over(control, connection, launch, candidate)
        except (SupersededError, WaitCancelledError):
            raise
        except AGSFlowsError as error:
            if error.retryable and not isinstance(error, LOST):
                raise
            on_trouble(f"Instance {candidate.id} of an earlier attempt is not taken over: {error}")
            continue
        if taken is not None:
            return Opened(taken, True)

    def start(client_token: str, metadata: dict[str, str]) -> Instance:
        if launch.cancelled.is_set():
            raise WaitCancelledError("The start of a sandbox was cancelled.")
        return control.start_instance(
            **launch.arguments,
            timeout=launch.timeout,
            metadata={**launch.metadata, **metadata},
            client_token=client_token,
        )

    started = start_once(control, launch.step, launch.owner, start, tool=launch.tool, lease=launch.lease)
    refuse_successors(launch.step.holder, started)
    return Opened(started, False)


def left_by_earlier_attempts(control: ControlPlane, step: Step, tool: str | None) -> list[Instance]:
    """Return the live instances of a step that earlier attempts started, in the order of `in_order`.

    Raises:
        SupersededError: A later attempt holds one of them.
    """
    known = control.list_instances(tool=tool, metadata={FAMILY: step.family})
    for instance in known:
        refuse_successors(step.holder, instance)
    return in_order([one for one in known if may_take_over(step.holder, one.status, one.metadata)])


def in_order(candidates: Iterable[Instance]) -> list[Instance]:
    """Return candidates in the order to try them: those of the latest attempt first, then the oldest first."""

    def key(instance: Instance) -> tuple[tuple[int, ...], str, str]:
        holder = holder_of(instance.metadata)
        return take_over_order(holder) if holder else (), instance.metadata.get(CREATED_AT, ""), instance.id

    return sorted(candidates, key=key)


def refuse_successors(mine: Holder, instance: Instance) -> None:
    """Raise an error if a later attempt holds a live instance.

    Raises:
        SupersededError: A later attempt holds it. This attempt must not continue.
    """
    theirs = holder_of(instance.metadata)
    if instance.status in LIVE and theirs is not None and relation(mine, theirs) == "stale":
        raise superseded(instance.id, str(theirs))


def release(control: ControlPlane, connection: Connection, instance: Instance) -> bool:
    """Record that the caller stops an instance that it holds. Return False if a later attempt has taken it over.

    The record is an atomic claim in the sandbox, so that of a release and a concurrent take-over only one succeeds.
    If the sandbox does not respond, the holder in the metadata decides.
    """
    mine = holder_of(instance.metadata)
    if mine is None:
        return True
    try:
        release_instance(open_plane(connection, instance.id).plane, mine)
    except SupersededError:
        return False
    except AGSFlowsError:
        return successor_of(control, mine, instance.id) is None
    return True


def successor_of(control: ControlPlane, mine: Holder, instance_id: str) -> SupersededError | None:
    """Return the error that names the later attempt that has, or had, an instance, which may have ended since.

    None if the metadata names no later attempt, and if AGS does not respond: most sandboxes have no successor.
    """
    try:
        known = persistently(lambda: control.list_instances(ids=[instance_id]), Backoff(attempts=3))
    except AGSFlowsError:
        return None
    theirs = holder_of(known[0].metadata) if known else None
    return superseded(instance_id, str(theirs)) if theirs is not None and relation(mine, theirs) == "stale" else None


def take_over(control: ControlPlane, connection: Connection, launch: Launch, candidate: Instance) -> Instance | None:
    """Take over an instance of an earlier attempt and return it RUNNING. Return None if another call was faster.

    It gets a new lease together with the metadata of its new holder, after it was claimed in the sandbox. If it would
    end soon, it gets the lease first, because a claim may take time. A paused one is resumed with it. One that its
    attempt had finished with, and was killed before it stopped it, is stopped.

    Raises:
        InstanceGoneError: The instance has ended, is stopped now, or does not respond.
        UnsupportedError: The sandbox does not support claims, or AGS started it without an override. In the second
            case it is stopped.
        SupersededError: A later attempt of the same run has it.
    """
    predecessor = holder_of(candidate.metadata)
    if predecessor is None:
        return None
    if candidate.status in RESUMABLE:
        candidate = resume(
            control,
            candidate.id,
            lease=launch.timeout,
            timeout=launch.startup_timeout,
            is_paused=candidate.status == "PAUSED",
        )
    else:
        if candidate.status != "RUNNING":
            candidate = wait_instance_running(
                control, candidate.id, timeout=launch.startup_timeout, cancelled=launch.cancelled
            )
        if _ends_soon(candidate):
            persistently(lambda: control.update_instance(candidate.id, timeout=launch.timeout))
    # An attempt that ended before it got the response to its start has not checked the overrides.
    control.check_overrides(
        candidate.id, custom=launch.arguments.get("custom"), auth_mode=launch.arguments.get("auth_mode")
    )
    plane = open_plane(connection, candidate.id).plane
    try:
        claimed = claim_instance(plane, launch.step.holder, predecessor)
    except UnreachableError as error:
        raise InstanceGoneError(f"Instance {candidate.id} does not respond: {error}") from error
    if claimed == "released":
        raise _stopped(control, candidate)
    if claimed == "sibling":
        return None
    # An earlier attempt may still run in this process and wait for commands in the sandbox.
    open_new_plane(connection, candidate.id)
    held = held_by(launch.step.holder, launch.owner, launch.lease)
    metadata = {**launch.metadata, **{name: value for name, value in held.items() if value}}
    persistently(lambda: control.update_instance(candidate.id, timeout=launch.timeout, metadata=metadata))
    return candidate.model_copy(update={"metadata": {**candidate.metadata, **metadata}})


def _stopped(control: ControlPlane, candidate: Instance) -> InstanceGoneError:
    """Stop an instance that an earlier attempt had finished with, and return an error with that reason."""
    done = f"An earlier attempt had finished with instance {candidate.id}, and left it."
    try:
        persistently(lambda: control.stop_instance(candidate.id), Backoff(attempts=3))
    except AGSFlowsError as error:
        return InstanceGoneError(f"{done} It is left to its lease and the reaper: {error}")
    return InstanceGoneError(f"{done} It is stopped now.")


def _ends_soon(instance: Instance) -> bool:
    ends = instance.expires_at
    return ends is not None and (ends - datetime.now(timezone.utc)).total_seconds() < SOON
