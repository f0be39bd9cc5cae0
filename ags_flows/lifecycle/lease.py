"""The timeout of an instance as a lease: short, and renewed while its owner lives.

One scheduler thread starts a thread for each renewal that is due, so that a renewal without a response does not delay
the others. All of them are daemon threads: they do not delay the end of the process. When the process dies, nothing
renews the leases any more, and AGS stops the sandboxes when their leases end.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.forks import reset_in_children
from ags_flows.durable.claims import superseded
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    SupersededError,
)
from ags_flows.ownership import ENDED, OWNER_HOST, OWNER_PID, RENEW_AT, RESUMABLE, Holder, holder_of, relation

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_AT = 0.1
"""After a failed renewal, the next one starts after this part of the time that is left."""

SHORTEST_PAUSE = 0.5
"""Seconds between a failed renewal and the next one, at least."""

REQUEST_SHARE = 0.1
"""Time limit of each request of a renewal, as a part of the lease."""

SHORTEST_REQUEST, LONGEST_REQUEST = 0.5, 10.0
"""Bounds of the time limit of a request, in seconds."""

LONGEST_LOOK = 15.0
"""Seconds between two looks at a paused instance, at most: a resume may set a timeout of 30 seconds."""

MOST_RENEWALS = 32
"""Renewals that run concurrently."""

_CHANGING = RESUMABLE | {"STARTING", "RESUMING"}
"""The instance is paused or in transition: AGS accepts no timeout now."""


@dataclass(eq=False)
class Lease:
    """A lease that is being renewed.

    Attributes:
        instance_id: The instance.
        seconds: Length of the lease.
        lost: Why the lease ended before its release: InstanceGoneError or SupersededError. None while it is renewed.
    """

    instance_id: str
    seconds: int
    _keeper: LeaseKeeper = field(repr=False)
    lost: AGSFlowsError | None = None

    def release(self) -> None:
        """Stop the renewals. The instance runs until its timeout, unless the caller stops it."""
        self._keeper.release(self)


@dataclass(eq=False)
class _Kept:
    """A lease with what its renewals need.

    Attributes:
        control: A view with the time limit of renewals.
        due: When the next renewal starts. Infinite while one is running.
        ends: When AGS stops the instance, at the earliest, if no renewal succeeds.
        paused: Whether the latest look found the instance paused or in transition. Its lease does not run then.
        failures: Failed renewals since the latest success.
    """

    lease: Lease
    control: ControlPlane
    holder: Holder | None
    on_trouble: Callable[[str], None]
    on_lost: Callable[[AGSFlowsError], None]
    due: float
    ends: float
    paused: bool = False
    failures: int = 0


class LeaseKeeper:
    """Renews the leases of this process. Thread-safe. Its threads end when there are no leases.

    Args:
        clock: Returns monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Drop all leases: a forked child process renews no lease of its parent.

        The lock is replaced, not taken: a thread that does not exist in the child may have held it at the fork.
        """
        self._changed = threading.Condition()
        self._kept: dict[Lease, _Kept] = {}
        self._running = 0
        self._thread: threading.Thread | None = None

    def keep(
        self,
        control: ControlPlane,
        instance_id: str,
        seconds: int,
        holder: Holder | None,
        *,
        age: float = 0.0,
        on_trouble: Callable[[str], None],
        on_lost: Callable[[AGSFlowsError], None] = lambda error: None,
    ) -> Lease:
        """Renew the timeout of an instance until the lease is released or lost. See `keep_lease`."""
        lease = Lease(instance_id, seconds, self)
        limit = min(LONGEST_REQUEST, max(SHORTEST_REQUEST, seconds * REQUEST_SHARE))
        now = self._clock()
        kept = _Kept(
            lease,
            control.with_timeout(limit),
            holder,
            on_trouble,
            on_lost,
            due=now + max(0.0, seconds * RENEW_AT - age),
            ends=now + seconds - age,
        )
        with self._changed:
            self._ensure_scheduler()
            self._kept[lease] = kept
            self._changed.notify_all()
        return lease

    def release(self, lease: Lease) -> None:
        """Stop the renewals of a lease. Does nothing if it is released or lost already."""
        with self._changed:
            self._kept.pop(lease, None)
            self._changed.notify_all()

    def _ensure_scheduler(self) -> None:
        """Start the scheduler thread if there is none, or if it died. The caller holds the lock."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._schedule, name="ags-leases", daemon=True)
            thread.start()
            self._thread = thread

    def _schedule(self) -> None:
        while True:
            with self._changed:
                if not self._kept:
                    self._thread = None
                    return
                # A copy: garbage collection may close a session in this thread, which releases its lease.
                first = min(list(self._kept.values()), key=lambda kept: kept.due)
                pause = first.due - self._clock() if self._running < MOST_RENEWALS else math.inf
                if pause > 0:
                    self._changed.wait(None if pause == math.inf else pause)
                    continue
                first.due = math.inf
                self._running += 1
            try:
                threading.Thread(target=self._renew, args=(first,), name="ags-lease-renewal", daemon=True).start()
            except Exception:  # noqa: BLE001 - without a thread, a late renewal is better than no renewal
                self._renew(first)

    def _renew(self, kept: _Kept) -> None:
        """Renew once, and always schedule the next renewal."""
        due = None
        try:
            due = self._next_renewal(kept)
        finally:
            with self._changed:
                self._running -= 1
                kept.due = self._clock() + SHORTEST_PAUSE if due is None else due
                if self._kept:
                    self._ensure_scheduler()
                self._changed.notify_all()

    def _next_renewal(self, kept: _Kept) -> float:
        """Renew once and return when the next renewal is due."""
        lease = kept.lease
        try:
            started = self._set_timeout(kept)
        except (InstanceGoneError, SupersededError) as error:
            self._lose(kept, error)
            return math.inf
        except Exception as error:  # noqa: BLE001 - any other error is a failed renewal
            return self._after_failure(kept, error)
        kept.failures = 0
        if started is None:
            kept.paused = True
            return self._clock() + _look_again(lease)
        kept.ends = started + lease.seconds
        return started + lease.seconds * RENEW_AT

    def _set_timeout(self, kept: _Kept) -> float | None:
        """Look at the instance and restart its timeout.

        Returns:
            When the new timeout starts, or None if the instance is paused or in transition.

        Raises:
            InstanceGoneError: The instance has ended, or AGS does not know it.
            SupersededError: A later attempt holds the instance.
        """
        instance_id = kept.lease.instance_id
        try:
            if not _is_renewable(kept):
                return None
        except NotFoundError:
            # A list can be out of date. The response to the update decides.
            pass
        started = self._clock()
        if kept.paused:
            kept.paused, kept.ends = False, started + kept.lease.seconds
        if kept.lease not in self._kept:
            return started
        try:
            kept.control.update_instance(instance_id, timeout=kept.lease.seconds)
        except NotFoundError:
            raise _gone(instance_id, "AGS does not know it any more") from None
        except (ConflictError, InvalidRequestError):
            try:
                if not _is_renewable(kept):
                    return None
            except NotFoundError:
                raise _gone(instance_id, "AGS does not know it any more") from None
            raise
        return started

    def _after_failure(self, kept: _Kept, error: Exception) -> float:
        lease, now = kept.lease, self._clock()
        kept.failures += 1
        text = str(error) if isinstance(error, AGSFlowsError) else repr(error)
        if kept.paused:
            if kept.failures == 1:
                self._report(kept, f"Paused sandbox {lease.instance_id} could not be checked; retrying. Error: {text}")
            return now + _look_again(lease)
        left = kept.ends - now
        if left <= 0:
            over = InstanceGoneError(
                f"The lease of sandbox {lease.instance_id} ended after {kept.failures} failed renewals. "
                f"The last error: {text}",
                hint="Check the network between this process and AGS, or use a longer lease.",
            )
            self._lose(kept, over)
            return math.inf
        self._report(
            kept,
            f"The lease of sandbox {lease.instance_id} could not be renewed and ends in {left:.0f} s; retrying. "
            f"Error: {text}",
        )
        return now + max(SHORTEST_PAUSE, left * RETRY_AT)

    def _report(self, kept: _Kept, sentence: str) -> None:
        if kept.lease in self._kept:
            _call(kept.lease, kept.on_trouble, sentence)

    def _lose(self, kept: _Kept, error: AGSFlowsError) -> None:
        with self._changed:
            if self._kept.pop(kept.lease, None) is None:
                return
            kept.lease.lost = error
            self._changed.notify_all()
        _call(kept.lease, kept.on_trouble, str(error))
        _call(kept.lease, kept.on_lost, error)


def _call(lease: Lease, callback: Callable[[T], None], value: T) -> None:
    """Call a callback. If it raises, log the error: the renewals continue."""
    try:
        callback(value)
    except BaseException:  # noqa: BLE001 - nothing that a callback raises may end the renewals
        logger.exception("A callback of the lease of sandbox %s failed", lease.instance_id)


def _look_again(lease: Lease) -> float:
    """Return the seconds until the next look at a paused instance."""
    return min(lease.seconds * RENEW_AT, LONGEST_LOOK)


def _is_renewable(kept: _Kept) -> bool:
    """Return whether AGS accepts a timeout for the instance now: False while it is paused or in transition.

    Raises:
        NotFoundError: AGS does not list the instance.
        InstanceGoneError: It has ended.
        SupersededError: A later attempt holds it.
    """
    instance = kept.control.get_instance(kept.lease.instance_id)
    theirs = holder_of(instance.metadata)
    if kept.holder is not None and theirs is not None and relation(kept.holder, theirs) == "stale":
        host, pid = instance.metadata.get(OWNER_HOST), instance.metadata.get(OWNER_PID)
        raise superseded(instance.id, str(theirs), f"process {pid or 'unknown'} on host {host}" if host else "")
    if instance.status in ENDED:
        raise _gone(instance.id, "its timeout was over" if instance.stop_reason == "timeout" else instance.status)
    return instance.status not in _CHANGING


def _gone(instance_id: str, reason: str) -> InstanceGoneError:
    return InstanceGoneError(f"Sandbox {instance_id} has ended ({reason}); its lease is no longer renewed.")


_keeper = LeaseKeeper()
reset_in_children(_keeper.forget)


def keep_lease(
    control: ControlPlane,
    instance_id: str,
    seconds: int,
    holder: Holder | None,
    *,
    age: float = 0.0,
    on_trouble: Callable[[str], None],
    on_lost: Callable[[AGSFlowsError], None] = lambda error: None,
) -> Lease:
    """Renew the timeout of an instance until the lease is released or lost.

    The first renewal starts after a quarter of the lease. A renewal looks at the instance first. If the instance is
    paused, it is checked again later, and renewed after it was resumed. Callbacks are called from other threads.

    Args:
        control: The control plane.
        instance_id: The instance, whose timeout the caller has set to `seconds`.
        seconds: Length of the lease.
        holder: The caller. The lease is lost when the instance's metadata names a later attempt of it. None: the
            metadata is not compared.
        age: Seconds since the timeout was set.
        on_trouble: Called with a sentence after each failed renewal, and when the lease is lost.
        on_lost: Called once if the lease is lost: with InstanceGoneError if the instance has ended or the lease could
            not be renewed in time, with SupersededError if a later attempt holds the instance.

    Returns:
        The lease. Call `release()` before the instance is stopped.
    """
    return _keeper.keep(control, instance_id, seconds, holder, age=age, on_trouble=on_trouble, on_lost=on_lost)
