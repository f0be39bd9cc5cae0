"""The sandboxes of a batch: started at the API's pace, taken over by a retry, kept alive by leases, ended with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Literal

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.cloud.retry import persistently
from ags_flows.durable.queue import SandboxQueue
from ags_flows.errors import AGSFlowsError, ConfigurationError, WaitCancelledError
from ags_flows.lifecycle.lease import Lease, keep_lease
from ags_flows.lifecycle.leased_sandbox import LeasedSandbox, open_leased
from ags_flows.lifecycle.open_sandbox import Launch, in_order
from ags_flows.models import CustomConfiguration, Instance
from ags_flows.models.durations import format_duration, parse_duration
from ags_flows.ownership import FAMILY, RENEW_AT, STEP_NAME, Step, may_take_over
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import Execution
from ags_flows.run.logs import Logger
from ags_flows.session import SandboxSession

STEP = "batch sandbox"
ENDERS = 16

MOST_SANDBOXES = 100
"""How many at the same time by default: each needs a thread, and one process cannot keep more busy with short items."""


@dataclass(frozen=True)
class Order:
    """What a sandbox is started from. Items that ask for the same can share one.

    Attributes:
        tool: A tool's id or name.
        custom: What the sandbox has different from its tool, such as another image.
    """

    tool: str
    custom: CustomConfiguration | None = None


@dataclass(eq=False)
class PooledSandbox:
    """A sandbox of the pool.

    Attributes:
        order: What it was started from.
        session: The session that functions get.
        leased: The sandbox with its lease.
        queue: The queue in it, once there is one.
        used: How many items were done in it.
        unswept: Finished items whose files are still there: digest of the place, and path of the inbox.
    """

    order: Order
    session: SandboxSession
    leased: LeasedSandbox
    queue: SandboxQueue | None = None
    used: int = 0
    unswept: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.leased.id


@dataclass
class _Counts:
    started: int = 0
    most: int = 0
    open: dict[str, PooledSandbox] = field(default_factory=dict)
    closed: Literal["", "left", "ended"] = ""


class Pool:
    """Opens and closes the sandboxes of one batch. Thread-safe.

    Args:
        config: Where AGS is.
        execution: The execution of the batch.
        lease: How long a sandbox outlives this process, by default the configuration's.
        logger: Gets what goes wrong with leases.
    """

    def __init__(
        self,
        config: AGSConfig,
        execution: Execution,
        *,
        lease: str | None = None,
        logger: Logger,
    ) -> None:
        self._config = config
        self._control = PacedControlPlane(config.connection())
        self._execution = execution
        self._seconds = parse_duration(lease or config.lease, field="lease")
        self._logger = logger
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._refused_since: float | None = None
        self._cancelled = threading.Event()
        self._context = copy_context()
        step = execution.step(STEP, {})
        self._holder = step.holder
        self._earlier = self._left_by_earlier_attempts(step) if step.holder.is_retry else []
        self._reserved: dict[str, Lease] = {}

    @property
    def started(self) -> int:
        """How many sandboxes were started so far."""
        return self._counts.started

    @property
    def most(self) -> int:
        """How many were open concurrently, at most."""
        return self._counts.most

    @property
    def refused_for(self) -> float:
        """For how many seconds this batch has had no sandbox at all, since AGS refused one for its quota."""
        with self._lock:
            since = self._refused_since
            return 0.0 if since is None or self._counts.open else time.monotonic() - since

    def note_refusal(self) -> None:
        """Note that AGS refused a sandbox for its quota."""
        with self._lock:
            if self._counts.open:
                self._refused_since = None
            elif self._refused_since is None:
                self._refused_since = time.monotonic()

    @property
    def left(self) -> frozenset[str]:
        """Ids of the live sandboxes that earlier attempts left, and that were not taken over yet."""
        with self._lock:
            return frozenset(instance.id for instance in self._earlier)

    def stop_left(self, ids: Collection[str]) -> None:
        """Stop sandboxes that earlier attempts left, and that this attempt does not take over."""
        with self._lock:
            unwanted = [one for one in self._earlier if one.id in ids]
            self._earlier = [one for one in self._earlier if one.id not in ids]
        for instance in unwanted:
            self._release(instance.id)
            self._end(instance)

    def reserve(self, ids: Collection[str]) -> None:
        """Let sandboxes that earlier attempts left be taken over only by a call that wants them: items run there.

        Their leases are renewed until then: the batch may have to wait for slots of a limit.
        """
        self._reserved = {
            one: keep_lease(
                self._control,
                one,
                self._seconds,
                self._holder,
                age=self._seconds * RENEW_AT,
                on_trouble=self._logger.warning,
            )
            for one in ids
        }

    def free_quota(self) -> int | None:
        """Return how many more instances the account may have, beside those that are left; see `free_quota`."""
        free = free_quota(self._control, self._config.region, self._logger)
        return None if free is None else free + len(self._earlier)

    def open(self, order: Order, wanted: str = "", call: str = "") -> PooledSandbox:
        """Return a running sandbox: one that an earlier attempt left, or a new one.

        A call that raises a retryable error may be repeated: what it did not take over is still there.

        Args:
            order: What it is started from.
            wanted: The id of the sandbox to take over, if it was left and is still there. One that was started from
                something else is stopped.
            call: Id of the call. A call that is repeated with the same id gets the sandbox that its first request
                started, if the response was lost.

        Raises:
            QuotaExceededError: The account has reached its quota.
            WaitCancelledError: The pool was interrupted.
        """
        step = self._execution.step(STEP, _of_order(order), call=call)
        launch = Launch(
            step=step,
            owner=self._execution.owner,
            arguments={"tool": order.tool, "custom": order.custom},
            timeout=format_duration(self._seconds),
            lease=self._seconds,
            startup_timeout=self._config.startup_timeout,
            cancelled=self._cancelled,
        )
        tried: list[Instance] = []
        try:
            leased = open_leased(
                self._control, launch, self._candidates(step, wanted, tried), on_trouble=self._logger.warning
            )
        except AGSFlowsError as error:
            if error.retryable and tried:
                with self._lock:
                    # The one whose take-over failed for now.
                    self._earlier.insert(0, tried[-1])
            raise
        self._release(leased.id)
        self._emit("adopted" if leased.taken_over else "started", leased.instance)
        sandbox = PooledSandbox(order, SandboxSession(order.tool, leased.instance, self._config, []), leased)
        with self._lock:
            self._counts.started += not leased.taken_over
            closed = self._counts.closed
            if not closed:
                self._counts.open[leased.id] = sandbox
                self._counts.most = max(self._counts.most, len(self._counts.open))
        if closed:
            if closed == "ended":
                self._end_mine(sandbox)
            else:
                leased.leave()
            raise WaitCancelledError("The sandbox was opened after the end of its batch.")
        return sandbox

    def close(self, sandbox: PooledSandbox) -> None:
        """Stop a sandbox. One that cannot be stopped is logged and left to its lease; so is a successor's."""
        with self._lock:
            self._counts.open.pop(sandbox.id, None)
        self._end_mine(sandbox)

    def interrupt(self) -> None:
        """End the waits in the sandboxes within a second, and start none from now on."""
        self._cancelled.set()
        with self._lock:
            opened = list(self._counts.open.values())
        for sandbox in opened:
            sandbox.leased.wake()

    def leave(self) -> None:
        """Let go of all sandboxes without stopping them: a retry takes them over, or their leases end them."""
        for sandbox in self._close("left")[0]:
            sandbox.leased.leave()
        self._control.close()

    def end(self) -> None:
        """Stop all sandboxes, those too that earlier attempts left and that were not taken over."""
        opened, unused = self._close("ended")
        with ThreadPoolExecutor(ENDERS, thread_name_prefix="ags-batch-end") as enders:
            list(enders.map(self._end_mine, opened))
            list(enders.map(self._end, unused))
        self._control.close()

    def _close(self, how: Literal["left", "ended"]) -> tuple[list[PooledSandbox], list[Instance]]:
        """Open no sandbox from now on; return those that are open, and those that were not taken over."""
        self._cancelled.set()
        with self._lock:
            opened, self._counts.open, self._counts.closed = list(self._counts.open.values()), {}, how
            unused, self._earlier = self._earlier, []
        for instance in unused:
            self._release(instance.id)
        return opened, unused

    def _candidates(self, step: Step, wanted: str, tried: list[Instance]) -> Iterator[Instance]:
        """Yield the sandboxes that earlier attempts left for a step, each to one thread; the wanted one first."""
        while True:
            with self._lock:
                fitting = [one for one in self._earlier if one.metadata.get(FAMILY) == step.family]
                free = [one for one in fitting if one.id == wanted or one.id not in self._reserved]
                found = min(free, key=lambda one: one.id != wanted, default=None)
                if found is not None:
                    self._earlier.remove(found)
            if found is None:
                break
            tried.append(found)
            yield found
            # It could not be taken over, and will not be.
            self._release(found.id)
            tried.clear()
        self.stop_left([wanted])

    def _release(self, instance_id: str) -> None:
        if instance_id in self._reserved:
            self._reserved[instance_id].release()

    def _end_mine(self, sandbox: PooledSandbox) -> None:
        if sandbox.leased.stop():
            self._emit("stopped", sandbox.leased.instance)

    def _end(self, instance: Instance) -> None:
        close_plane(self._config.connection(), instance.id)
        try:
            persistently(lambda: self._control.stop_instance(instance.id))
        except AGSFlowsError as error:
            self._logger.warning("Sandbox %s is left to its lease and the reaper: %s", instance.id, error)
        else:
            self._emit("stopped", instance)

    def _emit(self, what: str, instance: Instance) -> None:
        # The threads of a pool have no run context, and not its settings: which server gets the event.
        self._context.copy().run(tell_instance, what, instance)

    def _left_by_earlier_attempts(self, step: Step) -> list[Instance]:
        """Return the live sandboxes that earlier attempts of this batch left, whatever their order was.

        Those of other batches of the same run are at other places.
        """
        found = [
            instance
            for instance in self._control.each_instance()
            if instance.metadata.get(STEP_NAME) == STEP
            and instance.metadata.get(FAMILY, "").endswith(step.where)
            and may_take_over(step.holder, instance.status, instance.metadata)
        ]
        return in_order(found)


def free_quota(control: ControlPlane, region: str, logger: Logger) -> int | None:
    """Return how many more instances the account may have, None where AGS reports no quota, or does not respond.

    Raises:
        ConfigurationError: The quota is zero.
    """
    try:
        quota = control.quotas().instances
    except AGSFlowsError as error:
        # What starts a sandbox waits while there is no room.
        logger.warning("The quota of sandboxes is not known: %s", error)
        return None
    if quota is not None and quota.limit <= 0:
        raise ConfigurationError(
            f"This account may have no sandboxes in {region}: its quota of instances is 0.",
            hint="Ask for a quota, or choose another region. Nothing was started.",
        )
    return None if quota is None else max(0, int(quota.limit - quota.used))


def _of_order(order: Order) -> dict[str, Any]:
    return {"tool": order.tool, "custom": order.custom.model_dump(mode="json") if order.custom else None}
