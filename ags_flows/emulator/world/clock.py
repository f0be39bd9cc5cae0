"""The emulator's time: real time plus what tests have advanced it by."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import datetime, timezone


class Alarm:
    """A callback that is due at a moment of the emulator's time; see `Clock.schedule`."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        """Use `Clock.schedule` instead."""
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback; harmless when it has been called already."""
        self.callback = None


class Clock:
    """Time that can be advanced, and alarms that follow it.

    All alarms share one timer of the event loop, so that thousands of instances cost nothing while they wait. It
    is used from the event loop's thread only, except `now`, which any thread may call.

    Args:
        offset: Seconds by which the emulator's time is ahead of real time from the start.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self._base = time.time() - time.monotonic()
        self.offset = offset
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the emulator's time in seconds since 1970; it never goes back but by `reset`."""
        return self._base + time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        """Advance time by a number of seconds and ring all alarms that are due.

        Raises:
            ValueError: if seconds is negative.
        """
        if not seconds >= 0:
            raise ValueError(f"time can only be advanced by zero or more seconds, not by {seconds!r}")
        self.offset += seconds
        self._ring()

    def schedule(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call ``callback`` once, soon after the emulator's time has reached ``when``."""
        alarm = Alarm(when, callback)
        heapq.heappush(self._heap, (when, next(self._order), alarm))
        if self._heap[0][2] is alarm:
            self._arm()
        return alarm

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds of the emulator's time."""
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        alarm = self.schedule(self.now() + seconds, wake)
        try:
            await woken
        finally:
            alarm.cancel()

    def reset(self) -> None:
        """Return to real time and forget all alarms; only for a world that has been emptied."""
        self.close()
        self.offset = 0.0

    def close(self) -> None:
        """Forget all alarms."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        if self._heap:
            delay = max(0.0, self._heap[0][0] - self.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        now = self.now()
        while self._heap and self._heap[0][0] <= now:
            alarm = heapq.heappop(self._heap)[2]
            callback, alarm.callback = alarm.callback, None
            if callback is not None:
                callback()
        self._arm()


def iso(moment: float | None) -> str | None:
    """Return the moment as ISO 8601 in UTC with milliseconds, or None for None."""
    if moment is None:
        return None
    text = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
