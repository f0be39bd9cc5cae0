"""The engine of a batch: one thread a sandbox, which takes items until there are none."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass

from ags_flows.batch.items import Item
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.pool import Order, Pool, PooledSandbox
from ags_flows.batch.queue import Queue, Turn
from ags_flows.batch.work import Work, worth_another
from ags_flows.errors import (
    AGSFlowsError,
    ConfigurationError,
    CredentialsError,
    QuotaExceededError,
    SupersededError,
)
from ags_flows.models import ItemResult
from ags_flows.run.holder import Execution, acting_as
from ags_flows.run.logs import Logger

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
QUOTA_PAUSE = 3.0
LONGEST_STOP = 15.0


@dataclass
class Admission:
    """The leave for one sandbox.

    Attributes:
        held: Whether it holds. One that was given can be lost: then the sandbox ends after its item.
    """

    held: bool = True


Gate = Callable[[Callable[[], bool]], AbstractContextManager[Admission]]
"""Lets a sandbox in: entered before it is started, left after it has ended. Gives a leave that does not hold when the
batch, by the function that it gets, was over before there was room."""

Attempt = Callable[[Turn, Callable[[], ItemResult]], ItemResult]
"""Does one item: gets the turn and what does it. A place for a task run around each."""


def open_gate(over: Callable[[], bool]) -> AbstractContextManager[Admission]:
    """Let everybody in."""
    return nullcontext(Admission())


@dataclass(frozen=True)
class Limits:
    """How far a batch goes.

    Attributes:
        sandboxes: How many at once.
        items_per_sandbox: After how many items a sandbox is replaced; None for never, 1 for a fresh one each.
        retries: How often an item is tried again after a failure of the sandbox or the cloud.
        retries_of_failed: How often an item is tried again that itself failed.
        failures: More failed items than that end the batch early.
        quota_patience: Seconds to wait for the first sandbox while the quota is used up by others.
    """

    sandboxes: int
    items_per_sandbox: int | None = None
    retries: int = 2
    retries_of_failed: int = 0
    failures: int = 0
    quota_patience: float = 600.0


class Runner:
    """Does the items of a batch that are not done.

    Args:
        items: All items.
        work: What is done with each.
        order: What sandbox an item needs.
        pool: Opens and closes sandboxes.
        ledger: Knows what is done, and keeps it.
        limits: How far it goes.
        execution: The execution of the batch.
        logger: Gets what goes wrong.
        gate: Lets sandboxes in.
        attempt: Does one item.
        inherit_context: Work in the context of whoever makes this, so that steps can be task runs of its flow run.
    """

    def __init__(
        self,
        items: tuple[Item, ...],
        work: Work,
        order: Callable[[Item], Order],
        pool: Pool,
        ledger: Ledger,
        limits: Limits,
        *,
        execution: Execution,
        logger: Logger,
        gate: Gate = open_gate,
        attempt: Attempt = lambda turn, do: do(),
        inherit_context: bool = False,
    ) -> None:
        """Prepare the queue."""
        self._work = work
        self._order = order
        self._pool = pool
        self._ledger = ledger
        self._limits = limits
        self._execution = execution
        self._logger = logger
        self._gate = gate
        self._attempt = attempt
        turns = [self._turn(item) for item in items if item.key not in ledger.resumed]
        slots = range(min(limits.sandboxes, len(turns)))
        undone = {turn.item.key for turn in turns}
        at_work = {key: one.instance_id for key, one in ledger.begun.items() if key in undone}
        busy = [one for one in dict.fromkeys(at_work.values()) if one in pool.left]
        # Sandboxes with items in progress come first, whatever their order was.
        self._wanted = dict(zip(slots, busy, strict=False))
        pool.stop_left(busy[len(slots) :])
        self._queue = Queue(turns, {key: one for key, one in at_work.items() if one in self._wanted.values()})
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._done = set(ledger.resumed)
        self._failed = 0
        self._problem: AGSFlowsError | None = None
        self._interrupted = threading.Event()
        self._threads = [
            threading.Thread(target=context.run, args=(self._guarded, slot), name=f"ags-batch-{slot}", daemon=True)
            for slot in slots
            for context in [copy_context() if inherit_context else Context()]
        ]
        self._working = len(self._threads)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Return whether all is over, after at most some seconds.

        Raises:
            AGSFlowsError: The batch cannot go on at all.
        """
        with self._news:
            over = self._news.wait_for(lambda: self.over, seconds)
        if over and self._problem is not None:
            raise self._problem
        return over

    def wait_for(self, keys: Collection[str], seconds: float) -> int:
        """Return how many of these items are done, well or badly: once they all are, or after at most some seconds."""
        with self._news:
            self._news.wait_for(lambda: self.over or all(key in self._done for key in keys), seconds)
            return sum(key in self._done for key in keys)

    @property
    def over(self) -> bool:
        """Whether nothing is worked on any more."""
        return self._working == 0

    @property
    def done(self) -> int:
        """How many items are done, those of earlier attempts too."""
        with self._lock:
            return len(self._done)

    @property
    def failed(self) -> int:
        """How many items failed in this attempt."""
        with self._lock:
            return self._failed

    def stop(self) -> None:
        """Give out no items any more, and interrupt those that are being done; what becomes of the sandboxes is open.

        Returns within seconds.
        """
        self._interrupted.set()
        self._queue.close()
        self._pool.interrupt()
        ends = time.monotonic() + LONGEST_STOP
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, ends - time.monotonic()))

    def _turn(self, item: Item) -> Turn:
        begun = self._ledger.begun.get(item.key)
        # What was begun goes on under the same name; after an end the next attempt is another one.
        return Turn(item, begun.attempt if begun else self._ledger.attempts.get(item.key, 0) + 1)

    def _guarded(self, slot: int) -> None:
        try:
            # Who loses the leave on the way asks for another one.
            while self._serve(slot):
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it is must end the batch, not hang it
            ours = isinstance(error, AGSFlowsError)
            with self._lock:
                self._problem = self._problem or (
                    error if ours else AGSFlowsError(f"A fault of the batch itself: {type(error).__name__}: {error}")  # type: ignore[assignment]
                )
            self._queue.close()
        finally:
            with self._news:
                self._working -= 1
                self._news.notify_all()

    def _serve(self, slot: int) -> bool:
        """Work until there is nothing more to do, or the leave is lost: whether it is lost."""
        expected = self._wanted.pop(slot, None)
        sandbox: PooledSandbox | None = None
        with self._gate(lambda: self._queue.over) as admission:
            admitted = admission.held
            try:
                while admission.held and (turn := self._queue.take(sandbox.id if sandbox else expected)):
                    sandbox = self._do(slot, turn, sandbox, expected)
                    if expected is not None and (sandbox is None or sandbox.id != expected):
                        # It could not be taken over, or is gone: what was begun in it begins again.
                        self._queue.release(expected)
                        expected = None
            finally:
                # Who interrupts the batch also says what becomes of its sandboxes.
                if sandbox is not None and not self._interrupted.is_set():
                    self._pool.close(sandbox)
            return admitted and not admission.held

    def _do(self, slot: int, turn: Turn, sandbox: PooledSandbox | None, wanted: str | None) -> PooledSandbox | None:
        """Do one item, and return the sandbox for the next one, if it is still good."""
        used: PooledSandbox | None = None
        try:
            used = self._fitting(slot, turn.item, sandbox, wanted)
            result = self._work_on(turn, used)
        except QuotaExceededError as error:
            self._queue.give_back(turn)
            self._wait_for_room(error)
            return None
        except (ConfigurationError, CredentialsError, SupersededError):
            self._queue.give_back(turn)
            raise
        except AGSFlowsError as error:
            if self._interrupted.is_set():
                return used
            if used is not None and isinstance(used.lease.lost, SupersededError):
                raise used.lease.lost from error
            if used is not None:
                self._pool.close(used)
            self._after_error(turn, error, used.id if used else "")
            return None
        if self._interrupted.is_set() and result.status == "failed":
            # The interruption, most likely, and not the item.
            return used
        self._after(turn, result)
        used.session.steps.clear()
        used.used += 1
        if used.used == self._limits.items_per_sandbox or used.lost:
            self._pool.close(used)
            return None
        return used

    def _fitting(self, slot: int, item: Item, sandbox: PooledSandbox | None, wanted: str | None) -> PooledSandbox:
        order = self._order(item)
        if sandbox is not None and (sandbox.order != order or sandbox.lost):
            self._pool.close(sandbox)
            sandbox = None
        return sandbox or self._pool.open(slot, order, wanted)

    def _work_on(self, turn: Turn, sandbox: PooledSandbox) -> ItemResult:
        self._ledger.begin(turn.item, sandbox.id, turn.attempt)
        with acting_as(self._execution.within_item(turn.item.key, turn.attempt)):
            return self._attempt(turn, lambda: self._work.do(sandbox.session, turn.item, turn.attempt))

    def _after(self, turn: Turn, result: ItemResult) -> None:
        if result.status == "failed" and turn.tries < self._limits.retries_of_failed:
            self._again(turn, result.error)
        else:
            self._finish(turn, result)

    def _after_error(self, turn: Turn, error: AGSFlowsError, instance_id: str) -> None:
        if worth_another(error) and turn.tries < self._limits.retries:
            self._again(turn, str(error))
            return
        item = turn.item
        result = ItemResult(
            key=item.key,
            index=item.index,
            status="failed",
            error=str(error)[:2_000],
            error_class=type(error).__name__,
            attempts=turn.attempt,
            instance_id=instance_id,
        )
        self._finish(turn, result)

    def _again(self, turn: Turn, why: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**turn.tries) * random.uniform(0.75, 1.25)
        self._logger.info("Item %s again in %.0f s: %s", turn.item.key, pause, why.splitlines()[0] if why else "")
        self._queue.give_back(Turn(turn.item, turn.attempt + 1, turn.tries + 1), pause)

    def _finish(self, turn: Turn, result: ItemResult) -> None:
        self._ledger.finish(turn.item, result)
        with self._news:
            self._done.add(turn.item.key)
            self._failed += result.status == "failed"
            too_many = self._failed > self._limits.failures
            self._news.notify_all()
        if too_many:
            self._queue.close()

    def _wait_for_room(self, error: QuotaExceededError) -> None:
        """Wait a while; give up where this batch has no sandbox at all, and got none for long."""
        self._pool.note_refusal()
        if self._pool.refused_for > self._limits.quota_patience:
            raise error
        ends = time.monotonic() + random.uniform(0.5, 1.5) * QUOTA_PAUSE
        while time.monotonic() < ends and not self._interrupted.wait(0.2) and not self._queue.over:
            pass
