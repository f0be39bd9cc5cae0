"""Which item is next: in order, retries after their pause, and what was begun in a sandbox goes back to it."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ags_flows.batch.items import Item


@dataclass(frozen=True)
class Turn:
    """An item's turn.

    Attributes:
        item: The item.
        attempt: 1-based number of the attempt, counted across all runs of the batch. A part of its steps' place.
        tries: How often it was tried in this run.
    """

    item: Item
    attempt: int
    tries: int = 0


class Queue:
    """The items that wait for their turn. Thread-safe.

    Args:
        turns: All of them, in order.
        reserved: Keys of items to the sandbox that they were begun in, and with which a worker will ask.
        clock: Seconds that only grow.
    """

    def __init__(
        self, turns: Iterable[Turn], reserved: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the items."""
        self._clock = clock
        self._ready: deque[Turn] = deque()
        self._reserved: dict[str, deque[Turn]] = {}
        self._later: list[tuple[float, int, Turn]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        for turn in turns:
            sandbox = reserved.get(turn.item.key)
            (self._ready if sandbox is None else self._reserved.setdefault(sandbox, deque())).append(turn)

    def take(self, sandbox: str | None = None, enough: Callable[[list[Turn]], bool] = bool) -> list[Turn]:
        """Return the next items; wait for retries that are due later.

        An empty list means that there is nothing for this worker any more: what others work on comes back to them.

        Args:
            sandbox: What was begun in it comes first.
            enough: Whether no more items are wanted; by default one item is enough.
        """
        taken: list[Turn] = []
        with self._changed:
            while not self._closed and not (taken and enough(taken)):
                own = self._reserved.get(sandbox or "")
                now = self._clock()
                if own:
                    taken.append(own.popleft())
                elif self._later and self._later[0][0] <= now:
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
                self._ready.appendleft(turn)
            self._changed.notify_all()

    def release(self, sandbox: str) -> None:
        """Have what was begun in a sandbox done anywhere: it is gone."""
        with self._changed:
            self._ready.extendleft(reversed(self._reserved.pop(sandbox, deque())))
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
            return self._closed or not (self._ready or self._later or any(self._reserved.values()))
