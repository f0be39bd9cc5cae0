"""The engine of a batch: one thread a sandbox, which takes items until there are none."""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextvars import Context, copy_context
from dataclasses import replace

from ags_flows.batch.bundles import Bundles
from ags_flows.batch.items import Item
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.leftovers import sweep
from ags_flows.batch.plan import Plan
from ags_flows.batch.pool import Order, Pool, PooledSandbox
from ags_flows.batch.queue import Queue, Turn
from ags_flows.batch.storage import ResultsError
from ags_flows.batch.work import failed, worth_another
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import (
    AGSFlowsError,
    ConfigurationError,
    ConflictError,
    CredentialsError,
    QuotaExceededError,
    SupersededError,
    WaitCancelledError,
)
from ags_flows.models import ItemResult
from ags_flows.run.holder import acting_as
from ags_flows.run.logs import Logger

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
QUOTA_PAUSE = 3.0
QUOTA_PATIENCE = 600.0
"""Seconds to wait for the first sandbox while the quota is used up by others."""

LONGEST_STOP = 15.0

FINAL = (ResultsError, SupersededError, ConflictError)
"""Errors of the ledger after which nothing can be recorded: the batch does not wait for items in progress."""


class Runner:
    """Does the items of a batch that are not done.

    Args:
        plan: What is done.
        pool: Opens and closes sandboxes.
        ledger: The record of what is done.
        logger: Gets what goes wrong.
    """

    def __init__(self, plan: Plan, pool: Pool, ledger: Ledger, logger: Logger) -> None:
        self._plan = plan
        self._pool = pool
        self._ledger = ledger
        self._logger = logger
        undone = [item for item in plan.items if item.key not in ledger.resumed]
        slots = range(min(plan.sandboxes, len(undone)))
        at_work = dict.fromkeys(ledger.begun[item.key].instance_id for item in undone if item.key in ledger.begun)
        busy = [one for one in at_work if one in pool.left]
        reserved, others = busy[: len(slots)], busy[len(slots) :]
        pool.reserve(reserved)
        pool.stop_left(others)
        self._queue = Queue([self._turn(item, reserved) for item in undone])
        command = plan.work.queued if plan.options.task_runs != "items" else None
        self._bundles = Bundles(plan.work, command, plan.execution, len(slots)) if command else None
        self._news = threading.Condition()
        self._done = set(ledger.resumed)
        self._failed: set[str] = set()
        self._problem: AGSFlowsError | None = None
        self._interrupted = threading.Event()
        # Items that are task runs need the context of the flow run; all others work without one.
        contexts = [copy_context() if plan.options.task_runs == "items" else Context() for _ in slots]
        self._threads = [
            threading.Thread(target=context.run, args=(self._guarded,), name=f"ags-batch-{slot}", daemon=True)
            for slot, context in zip(slots, contexts, strict=True)
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

    def wait_for(self, keys: Collection[str], seconds: float) -> tuple[int, int]:
        """Return how many of these items have ended and how many failed: when all have, or after some seconds."""
        with self._news:
            self._news.wait_for(lambda: self.over or all(key in self._done for key in keys), seconds)
            return len(self._done.intersection(keys)), len(self._failed.intersection(keys))

    @property
    def over(self) -> bool:
        """Whether nothing is worked on any more, or nothing of it counts any more."""
        return self._working == 0 or self._interrupted.is_set()

    @property
    def done(self) -> int:
        """How many items have ended, those of earlier attempts too."""
        with self._news:
            return len(self._done)

    @property
    def failed(self) -> int:
        """How many items failed in this attempt."""
        with self._news:
            return len(self._failed)

    @property
    def started(self) -> int:
        """How many sandboxes this attempt has started."""
        return self._pool.started

    @property
    def most(self) -> int:
        """How many sandboxes were open concurrently, at most."""
        return self._pool.most

    def interrupt(self, reason: AGSFlowsError) -> None:
        """Begin no items any more, and end all waits within a second. Does not block.

        Args:
            reason: What `wait` raises then.
        """
        with self._news:
            self._problem = self._problem or reason
            self._interrupted.set()
            self._news.notify_all()
        self._queue.close()
        self._pool.interrupt()

    def stop(self) -> None:
        """Interrupt the batch and wait until its threads have ended, for some seconds at most.

        A thread that ends later begins nothing any more, and the pool ends what it opens.
        """
        self.interrupt(WaitCancelledError("The batch was interrupted."))
        ends = time.monotonic() + LONGEST_STOP
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, ends - time.monotonic()))

    def _turn(self, item: Item, reserved: Collection[str]) -> Turn:
        begun = self._ledger.begun.get(item.key)
        # What was begun goes on under the same name; after an end the next attempt is another one.
        attempt = begun.attempt if begun else self._ledger.attempts.get(item.key, 0) + 1
        return Turn(item, attempt, begun_in=begun.instance_id if begun and begun.instance_id in reserved else "")

    def _guarded(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - whatever it is must end the batch, not hang it
            problem = error if isinstance(error, AGSFlowsError) else _fault(error)
            with self._news:
                self._problem = self._problem or problem
            self._queue.close()
        finally:
            with self._news:
                self._working -= 1
                self._news.notify_all()

    def _serve(self) -> None:
        """Work until there is nothing more to do."""
        sandbox: PooledSandbox | None = None
        with self._plan.gate(lambda: self._queue.over) as admitted:
            try:
                while admitted and (turns := self._take(sandbox)):
                    sandbox = self._do(turns, sandbox)
            except FINAL as error:
                self.interrupt(error)
                raise
            finally:
                # The caller that interrupts the batch decides what happens to its sandboxes.
                if sandbox is not None and not self._interrupted.is_set():
                    self._pool.close(sandbox)

    def _take(self, sandbox: PooledSandbox | None) -> list[Turn]:
        size = 1
        if self._bundles is not None:
            size = self._bundles.size(self._queue.waiting)
            if self.failed:
                # The batch ends as soon as too many have failed.
                size = min(size, max(1, self._plan.failures - self.failed + 1))
        size = min(size, self._room(sandbox))
        return self._queue.take(sandbox is not None, lambda taken: len(taken) >= size)

    def _room(self, sandbox: PooledSandbox | None) -> int:
        """Return how many more items a sandbox may have."""
        most = self._plan.options.items_per_sandbox
        return sys.maxsize if most is None else max(0, most - (sandbox.used if sandbox else 0))

    def _do(self, turns: list[Turn], sandbox: PooledSandbox | None) -> PooledSandbox | None:
        """Do items, and return the sandbox for the next ones, if it is still good."""
        turns, order = self._alike(turns)
        if order is None:
            return sandbox
        opened = self._open(turns, order, sandbox)
        if opened is None or self._interrupted.is_set():
            return opened
        if not turns[0].begun_in:
            # One that was taken over has done some already.
            room = self._room(opened)
            self._give_back(turns[room:])
            turns = turns[:room]
        if not turns:
            self._pool.close(opened)
            return None
        # This is the sandbox in which they were begun, or that one is gone: they begin again.
        turns = [replace(turn, begun_in="") for turn in turns]
        used, undone = opened, list(turns)
        self._ledger.begin([(turn.item, turn.attempt) for turn in turns], used.id)
        results = self._work_on(used, turns)
        while True:
            try:
                turn, result = next(results)
            except StopIteration:
                break
            except AGSFlowsError as error:
                return self._after_error(undone, error, used)
            undone.remove(turn)
            if result is None:
                self._queue.give_back(turn)
            elif result.status == "failed" and self._interrupted.is_set():
                # The interruption, most likely, and not the item.
                return used
            else:
                self._after(turn, result)
                used.used += 1
        used.session.steps.clear()
        if self._room(used) == 0 or used.leased.lost:
            self._pool.close(used)
            return None
        return used

    def _alike(self, turns: list[Turn]) -> tuple[list[Turn], Order | None]:
        """Return the items that need the same sandbox as the first one, and which; the others are given back.

        An item that has no sandbox, such as one whose image does not exist, fails alone.
        """
        found: list[tuple[Turn, Order]] = []
        for turn in turns:
            try:
                found.append((turn, self._plan.order(turn.item)))
            except (ConfigurationError, CredentialsError):
                self._give_back(turns)
                raise
            except AGSFlowsError as error:
                self._charge([turn], error, "", again=worth_another(error))
        if not found:
            return [], None
        first = found[0][1]
        self._give_back([turn for turn, order in found if order != first])
        return [turn for turn, order in found if order == first], first

    def _open(self, turns: list[Turn], order: Order, sandbox: PooledSandbox | None) -> PooledSandbox | None:
        """Return a sandbox for items, None if there is none for them now: they are given back then."""
        if sandbox is not None and (sandbox.order != order or sandbox.leased.lost):
            self._pool.close(sandbox)
            sandbox = None
        if sandbox is not None:
            return sandbox
        backoff = Backoff(self._plan.options.retries + 1, first_pause=FIRST_PAUSE, longest_pause=LONGEST_PAUSE)
        call = uuid.uuid4().hex
        try:
            opened = persistently(
                lambda: self._pool.open(order, turns[0].begun_in, call),
                backoff,
                repeat=lambda error: error.retryable and not isinstance(error, QuotaExceededError),
                sleep=self._pause,
            )
            opened.used = self._ledger.ended_in(opened.id)
            return opened
        except QuotaExceededError as error:
            self._give_back(turns)
            self._wait_for_room(error)
        except (ConfigurationError, CredentialsError, SupersededError):
            self._give_back(turns)
            raise
        except AGSFlowsError as error:
            if not self._interrupted.is_set():
                self._charge(turns, error, "", again=worth_another(error) and not error.retryable)
        return None

    def _work_on(self, sandbox: PooledSandbox, turns: list[Turn]) -> Iterator[tuple[Turn, ItemResult | None]]:
        if self._bundles is not None:
            yield from self._bundles.run(sandbox, turns)
            return
        for turn in turns:
            execution = self._plan.execution.within_item(turn.item.key, turn.attempt)
            with acting_as(execution):
                result = self._plan.attempt(
                    turn,
                    lambda: self._plan.work.do(sandbox.session, turn.item, turn.attempt),  # noqa: B023
                )
            yield turn, result
            sweep(sandbox, turn.item, execution.place, self._plan.work.options.get("user"))

    def _after(self, turn: Turn, result: ItemResult) -> None:
        if result.status == "failed" and turn.tries < self._plan.options.retries_of_failed:
            self._again(turn, result.error)
        else:
            self._finish(turn, result)

    def _after_error(self, undone: list[Turn], error: AGSFlowsError, used: PooledSandbox) -> PooledSandbox | None:
        """Decide about items that have no result, since the sandbox or the cloud failed."""
        if self._interrupted.is_set():
            return used
        if isinstance(error, SupersededError) or isinstance(used.leased.lease.lost, SupersededError):
            raise used.leased.lease.lost or error
        if isinstance(error, (ConfigurationError, CredentialsError)):
            # Not of an item's function, whose errors are results.
            raise error
        self._pool.close(used)
        self._charge(undone, error, used.id, again=worth_another(error))
        return None

    def _charge(self, turns: list[Turn], error: AGSFlowsError, instance_id: str, *, again: bool) -> None:
        """Count an error as an attempt at the first of some items; the items behind it had not begun."""
        first, *others = turns
        self._give_back(others)
        if again and first.tries < self._plan.options.retries:
            self._again(first, str(error))
        else:
            self._finish(first, failed(first.item, first.attempt, error, instance_id))

    def _give_back(self, turns: list[Turn]) -> None:
        for turn in reversed(turns):
            self._queue.give_back(turn)

    def _again(self, turn: Turn, why: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**turn.tries) * random.uniform(0.75, 1.25)
        key, why = self._plan.work.masked((turn.item.key, why))
        self._logger.info("Item %s again in %.0f s: %s", key, pause, why.splitlines()[0] if why else "")
        self._queue.give_back(Turn(turn.item, turn.attempt + 1, turn.tries + 1), pause)

    def _finish(self, turn: Turn, result: ItemResult) -> None:
        self._ledger.finish([(turn.item, result)])
        with self._news:
            self._done.add(turn.item.key)
            if result.status == "failed":
                self._failed.add(turn.item.key)
            too_many = len(self._failed) > self._plan.failures
            self._news.notify_all()
        if too_many:
            self._queue.close()

    def _wait_for_room(self, error: QuotaExceededError) -> None:
        """Wait a while; give up where this batch has no sandbox at all, and got none for long."""
        self._pool.note_refusal()
        if self._pool.refused_for > QUOTA_PATIENCE:
            raise error
        ends = time.monotonic() + random.uniform(0.5, 1.5) * QUOTA_PAUSE
        while time.monotonic() < ends and not self._interrupted.wait(0.2) and not self._queue.over:
            pass

    def _pause(self, seconds: float) -> None:
        if self._interrupted.wait(seconds):
            raise WaitCancelledError("The batch was interrupted.")


def _fault(error: BaseException) -> AGSFlowsError:
    return AGSFlowsError(f"A fault of the batch itself: {type(error).__name__}: {error}")
