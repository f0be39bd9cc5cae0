"""Wait for tools and instances. All waits of this process share their describe calls.

Each kind of resource of one connection has a watch. The first waiter starts its thread, which requests all ids in one
call. The interval grows from 0.1 to 5 seconds and starts at 0.1 again when another waiter joins. The thread ends after
the last wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.error_mapping import IMAGE_CAUSES
from ags_flows.cloud.forks import ModuleLock
from ags_flows.errors import (
    AGSFlowsError,
    ConfigurationError,
    InstanceFailedError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    ToolFailedError,
    WaitCancelledError,
    WaitTimeoutError,
)
from ags_flows.models import Instance, Tool
from ags_flows.ownership import CHANGE_FAILED, NEVER_RAN, STOP_FAILED, STOPPING

FIRST_INTERVAL = 0.1
LAST_INTERVAL = 5.0
GROWTH = 1.5
MISSES = 3
"""Number of consecutive polls without a resource that was listed before, after which it counts as deleted."""

UNKNOWN_FOR = 15.0
"""Seconds for which a new id may be missing from the list before it counts as unknown."""

_FAILED = {
    "RUNNING": NEVER_RAN | STOP_FAILED | CHANGE_FAILED,
    "PAUSED": NEVER_RAN | STOP_FAILED | CHANGE_FAILED,
    "STOPPED": STOP_FAILED,
}
"""Statuses from which the goal cannot be reached."""

_REACHED = {
    "RUNNING": frozenset({"RUNNING"}),
    "PAUSED": frozenset({"PAUSED"}),
    "STOPPED": NEVER_RAN | {"STOPPED"},
}

R = TypeVar("R", Tool, Instance)


def wait_tool_active(
    control: ControlPlane, tool_id: str, *, timeout: float, cancelled: threading.Event | None = None
) -> Tool:
    """Return the tool once it is ACTIVE.

    Args:
        control: The control plane.
        tool_id: The tool.
        timeout: Seconds to wait.
        cancelled: If this event is set, the wait ends within a second.

    Raises:
        ToolFailedError: The tool is FAILED, with AGS's StatusReason.
        NotFoundError: AGS does not know the tool, or it is being deleted.
        WaitTimeoutError: It was not ACTIVE in time. Describe calls that fail with a retryable error are repeated
            until then.
        WaitCancelledError: `cancelled` was set.
    """
    return _watch(control, "tool", lambda ids: control.list_tools(ids=ids)).wait(tool_id, is_active, timeout, cancelled)


def is_active(tool: Tool) -> bool:
    """Return whether a tool is ACTIVE.

    Raises:
        ToolFailedError: The tool is FAILED.
        NotFoundError: It is being deleted.
    """
    if tool.status == "FAILED":
        raise ToolFailedError(
            f"Tool {tool.name!r} ({tool.id}) failed: {tool.status_reason or 'AGS gives no reason'}.",
            hint=f"{IMAGE_CAUSES} Delete the tool and create it again; ensure_tool does both.",
        )
    if tool.status == "DELETING":
        raise NotFoundError(f"Tool {tool.name!r} ({tool.id}) is being deleted.", hint="Create it again.")
    return tool.ready


def wait_instance_running(
    control: ControlPlane, instance_id: str, *, timeout: float, cancelled: threading.Event | None = None
) -> Instance:
    """Return the instance once it is RUNNING.

    Raises:
        InstanceFailedError: The start failed.
        InstanceGoneError: The instance was stopped or reached its timeout.
        WaitTimeoutError: The instance was not RUNNING in time.
        WaitCancelledError: `cancelled` was set.
    """
    return wait_instance_status(control, instance_id, goal="RUNNING", timeout=timeout, cancelled=cancelled)


def wait_instance_status(
    control: ControlPlane,
    instance_id: str,
    *,
    goal: str,
    timeout: float,
    cancelled: threading.Event | None = None,
) -> Instance:
    """Return the instance once it has the status `goal`: RUNNING, PAUSED or STOPPED.

    Shortly after a resume AGS may still report PAUSED, and shortly after a pause RUNNING. This is not a failure, unless
    AGS has already reported RESUMING or PAUSING. While the status is UNHEALTHY, the wait continues. An instance that
    failed, or that is missing in several consecutive polls, counts as STOPPED.

    Args:
        control: The control plane.
        instance_id: The instance.
        goal: The status to wait for.
        timeout: Seconds to wait.
        cancelled: If this event is set, the wait ends within a second.

    Raises:
        ConfigurationError: `goal` is not one of the three statuses.
        InstanceFailedError: The goal can no longer be reached.
        InstanceGoneError: The instance is being stopped, was stopped, or is not known to AGS.
        WaitTimeoutError: The goal was not reached in time.
        WaitCancelledError: `cancelled` was set.
    """
    settled = reaches(goal)
    watch = _watch(control, "instance", lambda ids: control.list_instances(ids=ids))
    try:
        return watch.wait(instance_id, settled, timeout, cancelled, known=goal == "STOPPED")
    except InstanceGoneError:
        if goal != "STOPPED":
            raise
        return Instance(id=instance_id, tool_id="", status="STOPPED")


def reaches(goal: str) -> Callable[[Instance], bool]:
    """Return a function for one wait: whether an instance, as it is listed at one time after the other, has the goal.

    Raises:
        ConfigurationError: `goal` is not one of the three statuses. The function raises `InstanceFailedError` and
            `InstanceGoneError`, as `wait_instance_status` does.
    """
    if goal not in _REACHED:
        raise ConfigurationError(f"goal must be one of {', '.join(_REACHED)}, got {goal!r}.")
    began = False
    underway = {"PAUSED": {"PAUSING"}, "RUNNING": {"STARTING", "RESUMING"}}.get(goal, set())
    fallen_back = {"PAUSED": {"RUNNING"}, "RUNNING": {"PAUSING", "PAUSED"}}.get(goal, set())

    def settled(instance: Instance) -> bool:
        nonlocal began
        status = instance.status
        if status in _REACHED[goal]:
            return True
        reason = f" ({instance.stop_reason})" if instance.stop_reason else ""
        if status in _FAILED[goal]:
            raise InstanceFailedError(
                f"Instance {instance.id} is {status}{reason} instead of {goal}.",
                hint=_FAILURE_HINTS.get(status, "Stop it and start another one."),
            )
        if goal != "STOPPED" and status in STOPPING:
            raise InstanceGoneError(
                f"Instance {instance.id} is {status}{reason} instead of {goal}.",
                hint="It was stopped or reached its timeout. Start another one.",
            )
        if began and status in fallen_back:
            raise InstanceFailedError(
                f"Instance {instance.id} is {status} again instead of {goal}.",
                hint="The change was undone by AGS, or another process paused or resumed the instance.",
            )
        began = began or status in underway
        return False

    return settled


_START = "Check the tool's image, command and probe: the start fails if the probe fails."

_FAILURE_HINTS = {
    "STARTING_FAILED": _START,
    "FAILED": _START,
    "PAUSE_FAILED": "It may still run. Check it, and stop it if it does not.",
    "RESUME_FAILED": "Resume it again, or start another one.",
}


@dataclass(eq=False)
class _Look(Generic[R]):
    """The last poll's result for one resource: the round, and the resource or the error."""

    round: int
    found: R | None = None
    trouble: AGSFlowsError | None = None


@dataclass(eq=False)
class _Watch(Generic[R]):
    """All waits for one kind of resource of one connection."""

    kind: str
    describe: Callable[[Sequence[str]], list[R]]
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: dict[str, int] = field(default_factory=dict)
    looks: dict[str, _Look[R]] = field(default_factory=dict)
    round: int = 0
    polling: bool = False
    joined: bool = False
    thread: threading.Thread | None = None

    def wait(
        self,
        resource_id: str,
        settled: Callable[[R], bool],
        timeout: float,
        cancelled: threading.Event | None,
        *,
        known: bool = False,
    ) -> R:
        """Return the resource once it has settled.

        Args:
            resource_id: The resource.
            settled: Whether it has; raises an error if it no longer can.
            timeout: Seconds to wait.
            cancelled: If this event is set, the wait ends within a second.
            known: True if the list had it before, so that it is not missing because it is new.
        """
        started = time.monotonic()
        looked, last, trouble, missed = self._join(resource_id), "unknown", None, 0
        try:
            while True:
                if cancelled is not None and cancelled.is_set():
                    raise WaitCancelledError(f"The wait for the {self.kind} {resource_id} ({last}) was cancelled.")
                look = self._next(resource_id, looked, started + timeout - time.monotonic())
                waited = time.monotonic() - started
                if look is not None:
                    looked, trouble = look.round, look.trouble
                    if look.found is not None:
                        last, missed, known = look.found.status, 0, True
                        if settled(look.found):
                            return look.found
                    elif trouble is not None and not trouble.retryable:
                        raise trouble
                    elif trouble is None:
                        missed += 1
                        # One list may leave a resource out, and the first lists may not have a new one yet.
                        if missed >= MISSES and (known or waited >= UNKNOWN_FOR):
                            raise self._missing(resource_id)
                if waited >= timeout:
                    why = f" The last poll failed: {trouble}" if trouble else ""
                    raise WaitTimeoutError(
                        f"The {self.kind} {resource_id} is still {last} after {waited:.0f} s.{why}",
                        hint="Use a longer timeout (startup_timeout), or check it in the console of AGS.",
                    )
        finally:
            self._leave(resource_id)

    def _missing(self, resource_id: str) -> AGSFlowsError:
        text = f"AGS does not know the {self.kind} {resource_id}, or no longer knows it."
        if self.kind == "tool":
            return NotFoundError(text, hint="Check the id and the region, or create it again.")
        return InstanceGoneError(text, hint="It has ended, or belongs to another region. Start another one.")

    def _next(self, resource_id: str, looked: int, left: float) -> _Look[R] | None:
        """Return the next result for a resource, or None if there is none within a second and within `left`."""

        def has_next() -> bool:
            look = self.looks.get(resource_id)
            return look is not None and look.round > looked

        with self.changed:
            # A forked child has no thread, so every waiter starts it if needed.
            self._start()
            self.changed.wait_for(has_next, timeout=max(0.0, min(1.0, left)))
            return self.looks[resource_id] if has_next() else None

    def _join(self, resource_id: str) -> int:
        with self.changed:
            self.waiting[resource_id] = self.waiting.get(resource_id, 0) + 1
            self.joined = True
            self._start()
            self.changed.notify_all()
            # A poll that is in progress may return the status from before this call.
            return self.round + self.polling

    def _leave(self, resource_id: str) -> None:
        with self.changed:
            self.waiting[resource_id] -= 1
            if not self.waiting[resource_id]:
                del self.waiting[resource_id]
                self.looks.pop(resource_id, None)
            if not self.waiting:
                self.changed.notify_all()

    def _start(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._poll, name=f"ags-wait-{self.kind}", daemon=True)
            self.thread.start()

    def _poll(self) -> None:
        interval, polled = FIRST_INTERVAL, 0.0
        while True:
            with self.changed:
                while self.waiting:
                    if self.joined:
                        # Soon, but not immediately: waiters that join shortly after one another share a poll.
                        interval, self.joined = FIRST_INTERVAL, False
                    left = polled + interval - time.monotonic()
                    if left <= 0:
                        break
                    self.changed.wait(timeout=left)
                if not self.waiting:
                    self.thread = None
                    return
                ids, self.polling = list(self.waiting), True
            polled = time.monotonic()
            found = self._look(ids)
            with self.changed:
                self.round, self.polling = self.round + 1, False
                for one in self.waiting:
                    if one in found:
                        self.looks[one] = replace(found[one], round=self.round)
                self.changed.notify_all()
            interval = min(LAST_INTERVAL, interval * GROWTH)

    def _look(self, ids: Sequence[str]) -> dict[str, _Look[R]]:
        try:
            found = {resource.id: resource for resource in self.describe(ids)}
            return {one: _Look(0, found.get(one)) for one in ids}
        except (InvalidRequestError, ConfigurationError) as error:
            if len(ids) == 1:
                return {ids[0]: _Look(0, trouble=error)}
            # One invalid id must not end the waits for the other ids.
            return {one: look for each in ids for one, look in self._look([each]).items()}
        except AGSFlowsError as error:
            return {one: _Look(0, trouble=error) for one in ids}
        except Exception as error:  # noqa: BLE001 - an internal error must reach the waiters, not end the thread
            internal = AGSFlowsError(f"Polling the status of {self.kind}s failed: {error!r}")
            return {one: _Look(0, trouble=internal) for one in ids}


_watches: dict[tuple[int, str], tuple[ControlPlane, _Watch[Tool] | _Watch[Instance]]] = {}
_watches_lock = ModuleLock()


def _watch(control: ControlPlane, kind: str, describe: Callable[[Sequence[str]], list[R]]) -> _Watch[R]:
    with _watches_lock:
        for key in [key for key, (_, watch) in _watches.items() if not watch.waiting and watch.thread is None]:
            del _watches[key]
        known = _watches.setdefault((id(control), kind), (control, _Watch(kind, describe)))
        return known[1]  # type: ignore[return-value]
