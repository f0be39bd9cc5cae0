"""The sandboxes in which the decorated functions of a run are called: shared, warm between calls, and never left.

A pool belongs to one root execution (a flow run) and one kind of sandbox. A call takes a sandbox that is idle, or opens
one, or waits. A sandbox that no call has used for a while is stopped; so are all when the run is cancelled, and when
the process ends after the run. A process that dies leaves them to their leases: the retry of the run takes them over,
and each call goes to the sandbox that has its journal.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from prefect.context import FlowRunContext

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.retry import persistently
from ags_flows.durable.journals import list_journals
from ags_flows.errors import (
    AGSFlowsError,
    ConfigurationError,
    InstanceGoneError,
    QuotaExceededError,
    UnsupportedError,
)
from ags_flows.functions.packages import find_snapshot, keep_snapshot
from ags_flows.lifecycle.leased_sandbox import LeasedSandbox, open_leased
from ags_flows.lifecycle.open_sandbox import Launch, left_by_earlier_attempts
from ags_flows.models import Instance, Snapshot
from ags_flows.models.durations import format_duration
from ags_flows.ownership import Step
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import Execution
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, has_ended
from ags_flows.run.prefect_contexts import flow_contexts, is_left

ASK_EVERY = 10.0
"""Seconds between two questions to the Prefect server whether the run has ended."""

STEP = "function sandbox"
LOOK_EVERY = 0.5

BROKEN_FOR = 60.0
"""Seconds for which no sandbox of a kind is started after one could not be prepared."""


@dataclass(frozen=True)
class Kind:
    """A kind of sandbox: calls that ask for an equal one share a pool.

    Attributes:
        tool: Name or id of the tool.
        packages: Key of the packages that are installed in it; empty for none.
        environment: Key of the environment in which they are installed, which names the index; empty for no packages.
        snapshot: Name of the snapshot that it is started from, if there is one; empty for none.
        sandboxes: The most that run concurrently.
        idle: Seconds without a call after which one is stopped.
    """

    tool: str
    packages: str
    environment: str
    snapshot: str
    sandboxes: int
    idle: float


@dataclass(eq=False)
class Warm:
    """A running sandbox of a pool.

    Attributes:
        leased: The sandbox with its lease.
        included: Keys of the local code that is in it.
        calls: How many calls use it now.
        idle_since: When the last one ended.
    """

    leased: LeasedSandbox
    included: set[str] = field(default_factory=set)
    calls: int = 1
    idle_since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Setup:
    """How the sandboxes of a pool are made.

    Attributes:
        find_tool: Returns the id of the tool: found, or made.
        prepare: Lays into a new sandbox what all calls need; returns whether a snapshot of it is worth keeping.
    """

    find_tool: Callable[[], str]
    prepare: Callable[[Instance], bool]


class Keeper(Protocol):
    """Stops the sandboxes of pools in time."""

    def watch(self, pool: Pool) -> None:
        """Stop the sandboxes of a pool when they are idle for too long, and when its run is over."""
        ...

    def drop(self, pool: Pool) -> None:
        """Forget a pool: the next call makes a new one."""
        ...


class Pool:
    """The sandboxes of one kind for one root execution. Thread-safe.

    Args:
        kind: What they are.
        config: Where AGS is.
        execution: The root execution.
        flow_run_id: The flow run, None outside of flow runs.
        setup: How its sandboxes are made.
        keeper: Stops its sandboxes in time.
    """

    def __init__(
        self,
        kind: Kind,
        config: AGSConfig,
        execution: Execution,
        flow_run_id: UUID | None,
        setup: Setup,
        keeper: Keeper,
    ) -> None:
        self._keeper = keeper
        self.kind = kind
        self._flow_run_id = flow_run_id
        self._flow_context: FlowRunContext | None = next(iter(flow_contexts()), None)
        self._config = config
        self._execution = execution
        self._setup = setup
        self._tool = ""
        self._broken: AGSFlowsError | None = None
        self._broken_at = 0.0
        self._is_ended = False
        self._ask_again = 0.0
        self._seconds = config.lease_seconds
        self._changed = threading.Condition()
        self._has_snapshots = bool(kind.snapshot)
        self._first, self._finding = threading.Lock(), threading.Lock()
        self._warm: list[Warm] = []
        self._opening = 0
        self._most = kind.sandboxes
        self._is_looked = self._is_led = False
        self._holding: defaultdict[str, list[Warm]] = defaultdict(list)
        self._context = copy_context()
        self._logger = run_logger()

    def take(self, family: str, cancelled: Callable[[], bool]) -> Warm:
        """Return a sandbox for a call, prepared: the one that has its journal, or any.

        Args:
            family: Of the call's step.
            cancelled: Whether the call is to end.

        Raises:
            InstanceGoneError: The call was cancelled while it waited.
            ConfigurationError: No sandbox of this kind can be prepared.
            QuotaExceededError: The account may have no sandbox at the moment.
        """
        self._look_once()
        while True:
            with self._changed:
                found = self._holder_of_journal(family) or self._idle()
                if found is not None:
                    found.calls += 1
                    return found
                self._must_not_be_broken()
                if cancelled() or self._is_ended:
                    raise InstanceGoneError("The call was cancelled before it had a sandbox.")
                if len(self._warm) + self._opening >= self._most:
                    self._changed.wait(LOOK_EVERY)
                    continue
                self._opening += 1
            try:
                return self._open_for_call()
            except QuotaExceededError:
                with self._changed:
                    if not self._warm and not self._opening:
                        raise
                    # What the account has left is less than the limit: the calls share what there is.
                    self._most = max(1, len(self._warm) + self._opening)

    def give_back(self, warm: Warm) -> None:
        """Return a sandbox after a call."""
        with self._changed:
            warm.calls -= 1
            warm.idle_since = time.monotonic()
            # One call can use it.
            self._changed.notify()
        self._keeper.watch(self)

    def remember(self, warm: Warm, family: str) -> None:
        """Note that a sandbox has the journal of a call whose outcome is not known yet."""
        with self._changed:
            self._holding[family].append(warm)

    def discard(self, warm: Warm) -> None:
        """Stop a sandbox that is of no use any more."""
        with self._changed:
            if warm in self._warm:
                self._warm.remove(warm)
            self._changed.notify_all()
        self._end(warm)

    def end(self, ending: Ending) -> None:
        """Stop all sandboxes, or leave them to a retry and to their leases, as the ending of the run asks for."""
        with self._changed:
            self._is_ended = True
            ended, self._warm = self._warm, []
            self._changed.notify_all()
        self._keeper.drop(self)
        for warm in ended:
            if ending in ("crashed", "suspended", "superseded"):
                warm.leased.leave()
            else:
                self._end(warm)

    def end_idle(self) -> None:
        """Stop what is idle for too long."""
        now = time.monotonic()
        with self._changed:
            over = [one for one in self._warm if not one.calls and now - one.idle_since >= self.kind.idle]
            self._warm = [one for one in self._warm if one not in over]
        for warm in over:
            self._end(warm)

    @property
    def is_outside_of_runs(self) -> bool:
        """Whether no flow run is around it, which could be retried."""
        return self._flow_run_id is None

    @property
    def is_of_another_process(self) -> bool:
        """Whether another process executes the flow run, and has sent tasks of it to this one."""
        return self._flow_context is not None and self._flow_context.detached

    @property
    def is_empty(self) -> bool:
        """Whether it has no sandbox."""
        return not self._warm and not self._opening

    def is_over(self) -> bool:
        """Return True if the run around it has ended, so that no call comes any more; False if it may be retried."""
        context = self._flow_context
        if self._flow_run_id is None or (context is not None and not is_left(context)):
            return False
        if time.monotonic() < self._ask_again:
            return False
        self._ask_again = time.monotonic() + ASK_EVERY
        try:
            return self._context.copy().run(has_ended, self._flow_run_id)
        except Exception:  # noqa: BLE001 - the server of a process that executes the flow may have ended with it
            # In the process of a pool, the context of each task is left, and the run goes on.
            return not self.is_of_another_process

    def _holder_of_journal(self, family: str) -> Warm | None:
        holding = self._holding.get(family, [])
        while holding:
            found = holding.pop(0)
            if found in self._warm and not found.leased.lost:
                return found
        return None

    def _idle(self) -> Warm | None:
        for lost in [one for one in self._warm if one.leased.lost and not one.calls]:
            self._warm.remove(lost)
        return next((one for one in self._warm if not one.calls and not one.leased.lost), None)

    def _must_not_be_broken(self) -> None:
        if self._broken is not None and time.monotonic() - self._broken_at < BROKEN_FOR:
            raise self._broken

    def _open_for_call(self) -> Warm:
        """Open a sandbox."""
        try:
            warm = self._led() or self._open(None, self._snapshot())
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()
        with self._changed:
            is_ended = self._is_ended
            if not is_ended:
                self._warm.append(warm)
        if is_ended:
            self._end(warm)
            raise InstanceGoneError("The run ended while the sandbox for a call was being started.")
        return warm

    def _led(self) -> Warm | None:
        """Open the first sandbox, if others can start from its snapshot then: they wait for it. Else return None."""
        if self._is_led or not self.kind.snapshot:
            return None
        with self._first:
            self._must_not_be_broken()
            if self._is_led:
                return None
            try:
                snapshot = find_snapshot(self._config.control_plane(), self.kind.snapshot)
            except AGSFlowsError:
                self._has_snapshots, self._is_led = False, True
                return None
            warm = None if snapshot else self._open(None)
            self._is_led = True
            return warm

    def _snapshot(self) -> Snapshot | None:
        if not self.kind.snapshot or not self._has_snapshots:
            return None
        with suppress(AGSFlowsError):
            return find_snapshot(self._config.control_plane(), self.kind.snapshot)
        return None

    def _look_once(self) -> None:
        """Take over what earlier attempts of the run left, with the journals in it."""
        if self._is_looked:
            return
        with self._first:
            step = self._step()
            if self._is_looked or not step.holder.is_retry:
                self._is_looked = True
                return
            control = self._config.control_plane()
            for candidate in left_by_earlier_attempts(control, step, None):
                with suppress(AGSFlowsError):
                    warm = self._open(candidate)
                    warm.calls = 0
                    plane = warm.leased.plane.plane
                    journals = persistently(lambda: list_journals(plane))  # noqa: B023 - called here
                    with self._changed:
                        self._warm.append(warm)
                        for journal in journals:
                            self._holding[journal.rpartition(".")[0]].append(warm)
            self._is_looked = True
        self._keeper.watch(self)

    def _step(self) -> Step:
        kind = self.kind
        return self._execution.step(
            STEP, {"tool": kind.tool, "packages": kind.packages, "environment": kind.environment}
        )

    def _open(self, candidate: Instance | None, snapshot: Snapshot | None = None) -> Warm:
        config, control = self._config, self._config.control_plane()
        if snapshot is None and not self._tool:
            with self._finding:
                self._tool = self._tool or self._setup.find_tool()
        origin: dict[str, Any] = {"snapshot_id": snapshot.id} if snapshot else {"tool": self._tool}
        step = self._step()
        launch = Launch(
            step=step,
            owner=self._execution.owner,
            arguments=origin,
            timeout=format_duration(self._seconds),
            lease=self._seconds,
            startup_timeout=config.startup_timeout,
        )
        candidates = [] if candidate is None else [candidate]
        # Repeated with the same step: a start whose response was lost is found.
        leased = persistently(
            lambda: open_leased(control, launch, candidates, on_trouble=self._logger.warning),
            repeat=lambda error: error.retryable and not isinstance(error, QuotaExceededError),
        )
        warm, instance = Warm(leased), leased.instance
        tell_instance("adopted" if leased.taken_over else "started", instance)
        self._logger.info("%s sandbox %s for functions", "Took over" if leased.taken_over else "Started", leased.id)
        try:
            if self._setup.prepare(instance) and self._has_snapshots and not self._is_led:
                # Of the first one alone: the account has it now, or can have none.
                keep_snapshot(control, instance, self.kind.snapshot)
        except BaseException as error:
            if isinstance(error, (ConfigurationError, UnsupportedError)):
                # No other sandbox can be prepared now either.
                self._broken, self._broken_at = error, time.monotonic()
            self._end(warm)
            raise
        return warm

    def _end(self, warm: Warm) -> None:
        if warm.leased.stop():
            # Prefect emits no events while the interpreter is shutting down.
            with suppress(Exception):
                self._context.copy().run(tell_instance, "stopped", warm.leased.instance)
