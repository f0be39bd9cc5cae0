"""How many items a sandbox gets in one request: as many short ones as take about a second, and one of all others."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

from ags_flows.batch.pool import PooledSandbox
from ags_flows.batch.queue import Turn
from ags_flows.batch.work import OUTPUT_LIMIT, Work, inbox_of
from ags_flows.durable.command import Command
from ags_flows.durable.queue import MOST_ITEMS, SLOW, QueuedItem, SandboxQueue, fits
from ags_flows.models import ItemResult
from ags_flows.ownership import digest
from ags_flows.run.holder import Execution, acting_as

SECONDS = 1.0
"""Seconds that the items of one request take, about."""

LEAST_SECONDS = 0.3
"""Seconds of items that a request has also at the end of a batch, when the last ones are shared by all sandboxes."""

GROWTH = 8
"""The largest ratio of the items of a request to those of the request before."""

REMEMBERED = 20
"""Items over which the duration of an item is averaged, about."""


class Bundles:
    """Executes the items of a batch by the queues of its sandboxes. Thread-safe.

    Args:
        work: What is done.
        command: The same, as the queues take it.
        execution: The execution of the batch.
        sandboxes: How many sandboxes share the items.
    """

    def __init__(self, work: Work, command: Command, execution: Execution, sandboxes: int) -> None:
        self._work = work
        self._command = command
        self._execution = execution
        self._step = execution.step("batch queue", work.version)
        self._sandboxes = sandboxes
        self._lock = threading.Lock()
        self._average: float | None = None
        self._largest = 1

    def size(self, waiting: int) -> int:
        """Return how many items the next request has.

        Args:
            waiting: How many items have not begun: the last ones are shared by all sandboxes.
        """
        with self._lock:
            if self._average is None or self._average > SLOW:
                return 1
            average = max(self._average, 0.001)
            share = max(math.ceil(waiting / self._sandboxes), int(LEAST_SECONDS / average))
            return max(1, min(int(SECONDS / average), share, GROWTH * self._largest, MOST_ITEMS))

    def run(self, sandbox: PooledSandbox, turns: Sequence[Turn]) -> Iterator[tuple[Turn, ItemResult | None]]:
        """Execute items and yield their results, None for those that were taken back before they began.

        Raises:
            AGSFlowsError: The sandbox or the cloud failed: the items without a result have none.
        """
        queue = sandbox.queue
        if queue is None:
            queue = SandboxQueue(
                sandbox.leased.plane.plane,
                sandbox.leased.plane.cancelled,
                self._command,
                self._step.family,
                self._step.holder,
                OUTPUT_LIMIT,
            )
            sandbox.queue = queue
        known: dict[str, Turn] = {}
        failures: list[tuple[Turn, ItemResult]] = []
        for pending in self._requests(sandbox, turns, known, failures):
            for outcomes in queue.run(pending):
                for outcome in outcomes:
                    turn = known[outcome.name]
                    if outcome.how == "revoked":
                        yield turn, None
                        continue
                    result = self._work.result_of(turn.item, turn.attempt, outcome, sandbox.id)
                    self._learn(result.seconds, len(pending))
                    yield turn, result
                    queue.forget([outcome.name], [inbox_of(turn.item)])
        yield from failures

    def _requests(
        self,
        sandbox: PooledSandbox,
        turns: Sequence[Turn],
        known: dict[str, Turn],
        failures: list[tuple[Turn, ItemResult]],
    ) -> Iterator[list[QueuedItem]]:
        """Divide items into requests, which have a longest size; note those that fail before they can be queued."""
        pending: list[QueuedItem] = []
        for turn in turns:
            with acting_as(self._execution.within_item(turn.item.key, turn.attempt)):
                found = self._work.prepare(sandbox.session, turn.item, turn.attempt)
            if sandbox.queue is not None:
                sandbox.queue.keep(inbox_of(turn.item))
            if isinstance(found, ItemResult):
                failures.append((turn, found))
                continue
            item = QueuedItem(digest(f"{turn.item.key}#{turn.attempt}", turn.item.version), found)
            known[item.name] = turn
            if pending and not fits(pending, item):
                yield pending
                pending = []
            pending.append(item)
        if pending:
            yield pending

    def _learn(self, seconds: float, together: int) -> None:
        with self._lock:
            known = seconds if self._average is None else self._average
            self._average = known + (seconds - known) / REMEMBERED
            self._largest = max(self._largest, together)
