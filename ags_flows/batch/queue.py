"""Which item is next: in order, retries after their pause, and what was begun in a sandbox stays together."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ags_flows.batch.items import Item


@dataclass(frozen=True)
class Turn:
    """An item's turn.

    Attributes:
        item: The item.
        attempt: 1-based number of the attempt, counted across all runs of the batch. A part of its steps' place.
        tries: How often it was tried in this run.
        begun_in: The sandbox in which an earlier run has begun it, until this run has that sandbox, or knows that it
            is gone. It goes on there, and nowhere else.
    """

    item: Item
    attempt: int
    tries: int = 0
    begun_in: str = ""


class Queue:
    """The items that wait for their turn. Thread-safe.

    Args:
        turns: All of them, in order.
        clock: Seconds that only grow.
    """

    def __init__(self, turns: Iterable[Turn], clock: Callable[[], float] = time.monotonic) -> None:
        """Take the items."""
        self._clock = clock
        self._ready: deque[Turn] = deque()
        self._begun: dict[str, deque[Turn]] = {}
        self._later: list[tuple[float, int, Turn]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        for turn in turns:
            self._place_of(turn).append(turn)

    def take(self, has_sandbox: bool = False, enough: Callable[[list[Turn]], bool] = bool) -> list[Turn]:
        """Return the next items; wait for retries that are due later.

        An empty list means that there is nothing for this worker any more: what others work on comes back to them.

        Args:
            has_sandbox: Whether the worker has a sandbox. One that has none gets all that was begun in one, if there
                is such a sandbox, and takes it over.
            enough: Whether no more items are wanted; by default one item is enough.
        """
        taken: list[Turn] = []
        with self._changed:
            while not self._closed and not (taken and enough(taken)):
                now = self._clock()
                if self._begun and not has_sandbox and not taken:
                    return list(self._begun.pop(next(iter(self._begun))))
                if self._later and self._later[0][0] <= now:
                    taken.append(heapq.heappop(self._later)[2])
                elif self._ready:
                    taken.append(self._ready.popleft())
                elif taken or not self._later:
                    break
                else:
                    self._changed.wait(min(1.0, self._later[0][0] - now))
            if self._closed and taken:
                self._ready.extendleft(reversed(taken))
                return []
        return taken

    @property
    def waiting(self) -> int:
        """How many items are ready for any worker."""
        return len(self._ready)

    def give_back(self, turn: Turn, pause: float = 0.0) -> None:
        """Have an item done after some seconds; without a pause, before all others."""
        with self._changed:
            if pause > 0:
                heapq.heappush(self._later, (self._clock() + pause, next(self._order), turn))
            else:
                self._place_of(turn).appendleft(turn)
            self._changed.notify_all()

    def close(self) -> None:
        """Give out no items any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether no worker gets an item any more, unless one is given back."""
        with self._changed:
            return self._closed or not (self._ready or self._later or self._begun)

    def _place_of(self, turn: Turn) -> deque[Turn]:
        return self._begun.setdefault(turn.begun_in, deque()) if turn.begun_in else self._ready
