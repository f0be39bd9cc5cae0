"""Waiting for tools and instances: one describe call for all that this process waits for.

Each kind of resource of one connection has a watch. The first waiter starts its thread, which asks for all ids at
once, with an interval that grows from 0.2 to 5 seconds and starts over when somebody joins; it ends with the last
waiter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import (
    AGSFlowsError,
    InstanceFailedError,
    InstanceGoneError,
    ToolFailedError,
    WaitTimeoutError,
)
from ags_flows.models import Instance, Tool

FIRST_INTERVAL = 0.2
LAST_INTERVAL = 5.0
GROWTH = 1.5
UNKNOWN_FOR = 15.0
"""Seconds that a fresh id may be missing from the list before it counts as gone."""

_FAILED = frozenset(
    {
        "FAILED",
        "STARTING_FAILED",
        "STOPPING_FAILED",
        "STOP_FAILED",
        "PAUSE_FAILED",
        "RESUME_FAILED",
        "FORK_FAILED",
    }
)
_ENDED = frozenset({"STOPPING", "STOPPED"})

R = TypeVar("R", Tool, Instance)


def wait_tool_active(
    control: ControlPlane, tool_id: str, *, timeout: float, cancelled: threading.Event | None = None
) -> Tool:
    """Return the tool once it is ACTIVE.

    Args:
        control: The control plane.
        tool_id: The tool.
        timeout: Seconds.
        cancelled: Ends the wait within a second when set.

    Raises:
        ToolFailedError: It is FAILED; with AGS's StatusReason.
        WaitTimeoutError: It was not ACTIVE in time.
    """

    def settled(tool: Tool) -> bool:
        if tool.status == "FAILED":
            raise ToolFailedError(
                f"Tool {tool.name!r} ({tool.id}) failed: {tool.status_reason or 'AGS gives no reason'}.",
                hint="Check image, registry and role_arn; delete the tool and create it anew.",
            )
        if tool.status == "DELETING":
            raise ToolFailedError(f"Tool {tool.name!r} ({tool.id}) is being deleted.")
        return tool.status in ("ACTIVE", "READY")

    return _watch(control, "tool", lambda ids: control.list_tools(ids=ids)).wait(tool_id, settled, timeout, cancelled)


def wait_instance_running(
    control: ControlPlane, instance_id: str, *, timeout: float, cancelled: threading.Event | None = None
) -> Instance:
    """Return the instance once it is RUNNING.

    Raises:
        InstanceFailedError: It failed to start, and never will.
        InstanceGoneError: It was stopped or ran into its timeout.
        WaitTimeoutError: It was not RUNNING in time.
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
    """Return the instance once it has the state `goal`: RUNNING, PAUSED or STOPPED.

    Right after a resume AGS may still answer PAUSED, right after a pause RUNNING: neither is taken for a failure,
    except a RUNNING that follows a PAUSING, which is a pause that was rolled back.
    """
    seen: set[str] = set()

    def settled(instance: Instance) -> bool:
        status = instance.status
        if status == goal or (goal == "RUNNING" and status == "UNHEALTHY"):
            if not (goal == "PAUSED" and status == "RUNNING"):
                return True
        if status in _FAILED:
            raise InstanceFailedError(
                f"Instance {instance.id} is {status} instead of {goal}.",
                hint="Check the tool's image, command and probe; AGS starts no instance whose probe fails.",
            )
        if goal != "STOPPED" and status in _ENDED:
            reason = f" ({instance.stop_reason})" if instance.stop_reason else ""
            raise InstanceGoneError(f"Instance {instance.id} is {status}{reason} instead of {goal}.")
        if goal == "PAUSED" and status == "RUNNING" and "PAUSING" in seen:
            raise InstanceFailedError(f"Instance {instance.id} could not be paused: it is RUNNING again.")
        seen.add(status)
        return False

    watch = _watch(control, "instance", lambda ids: control.list_instances(ids=ids))
    try:
        return watch.wait(instance_id, settled, timeout, cancelled)
    except InstanceGoneError:
        if goal != "STOPPED":
            raise
        return Instance(id=instance_id, tool_id="", status="STOPPED")


@dataclass
class _Watch(Generic[R]):
    """All waits for one kind of resource of one connection."""

    kind: str
    describe: Callable[[Sequence[str]], list[R]]
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[int, R | None]] = field(default_factory=dict)
    trouble: AGSFlowsError | None = None
    round: int = 0
    joined: bool = False
    thread: threading.Thread | None = None

    def wait(
        self,
        resource_id: str,
        settled: Callable[[R], bool],
        timeout: float,
        cancelled: threading.Event | None,
    ) -> R:
        started = time.monotonic()
        self._join(resource_id)
        looked, last = self.round, "unknown"
        try:
            while True:
                with self.changed:
                    # One notification a round, and one for whoever joins or leaves: a wait may end without news.
                    if self.round == looked:
                        self.changed.wait(timeout=min(1.0, max(0.01, timeout)))
                    fresh, looked = self.round > looked, self.round
                    resource = self.seen.get(resource_id, (0, None))[1] if fresh else None
                    trouble = self.trouble
                waited = time.monotonic() - started
                if trouble is not None and not trouble.retryable:
                    raise trouble
                if resource is not None:
                    last = resource.status
                    if settled(resource):
                        return resource
                elif fresh and trouble is None and waited > UNKNOWN_FOR:
                    raise InstanceGoneError(f"AGS does not know the {self.kind} {resource_id} (any more).")
                if cancelled is not None and cancelled.is_set():
                    raise InstanceGoneError(f"The wait for {self.kind} {resource_id} was cancelled.")
                if waited >= timeout:
                    why = f" The last answer was an error: {trouble}" if trouble else ""
                    raise WaitTimeoutError(
                        f"The {self.kind} {resource_id} is still {last} after {waited:.0f} s.{why}",
                        hint="Give it more time with startup_timeout, or look at it in the console of AGS.",
                    )
        finally:
            self._leave(resource_id)

    def _join(self, resource_id: str) -> None:
        with self.changed:
            self.waiting[resource_id] = self.waiting.get(resource_id, 0) + 1
            self.seen.pop(resource_id, None)
            self.joined = True
            if self.thread is None:
                self.thread = threading.Thread(target=self._poll, name=f"ags-wait-{self.kind}", daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def _leave(self, resource_id: str) -> None:
        with self.changed:
            self.waiting[resource_id] -= 1
            if not self.waiting[resource_id]:
                del self.waiting[resource_id]
                self.seen.pop(resource_id, None)
            self.changed.notify_all()

    def _poll(self) -> None:
        interval = FIRST_INTERVAL
        while True:
            with self.changed:
                if not self.waiting:
                    self.thread = None
                    return
                if self.joined:
                    interval, self.joined = FIRST_INTERVAL, False
                ids = list(self.waiting)
            try:
                found, trouble = {resource.id: resource for resource in self.describe(ids)}, None
            except AGSFlowsError as error:
                found, trouble = {}, error
            except Exception as error:  # noqa: BLE001 - a fault of ours must reach the waiters, not end the thread
                found, trouble = {}, AGSFlowsError(f"Looking for {self.kind}s failed: {error!r}")
            with self.changed:
                self.round += 1
                self.trouble = trouble
                self.seen = {one: (self.round, found.get(one)) for one in ids}
                self.changed.notify_all()
                # Nobody left: wake at once and end, instead of sleeping through the interval.
                self.changed.wait_for(lambda: self.joined or not self.waiting, timeout=interval)
            interval = min(LAST_INTERVAL, interval * GROWTH)


_watches: dict[tuple[int, str], tuple[ControlPlane, _Watch[Tool] | _Watch[Instance]]] = {}
_watches_lock = threading.Lock()


def _watch(control: ControlPlane, kind: str, describe: Callable[[Sequence[str]], list[R]]) -> _Watch[R]:
    with _watches_lock:
        for key in [key for key, (_, watch) in _watches.items() if not watch.waiting and watch.thread is None]:
            del _watches[key]
        known = _watches.setdefault((id(control), kind), (control, _Watch(kind, describe)))  # type: ignore[arg-type]
        return known[1]  # type: ignore[return-value]
