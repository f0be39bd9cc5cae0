"""A control plane that keeps within the API's rates, for callers that make thousands of calls.

AGS counts requests for each action, region and account. All paced control planes of one account in this process share
their pace. Requests of other processes show only in a RequestLimitExceeded response, after which the calls wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.forks import reset_in_children
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import ThrottledError

RATES = {"StartSandboxInstance": 100.0, "StopSandboxInstance": 100.0, "AcquireSandboxInstanceToken": 100.0}
"""Requests a second, as AGS documents them."""

OTHER_RATE = 20.0

SHARE = 0.96
"""The part of a rate that is used: requests do not arrive at the intervals at which they are sent."""

BACKOFF = Backoff(attempts=8, first_pause=0.25)


class Pace:
    """Limits how many calls start in any second. A short burst starts immediately. Thread-safe.

    Args:
        rate: How many a second.
        clock: Seconds that only grow.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = max(1, int(rate))
        self._clock = clock
        self._sleep = sleep
        self._latest: deque[float] = deque(maxlen=self.rate)
        self._held_until = float("-inf")
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the caller may start."""
        with self._lock:
            now = self._clock()
            full = len(self._latest) == self.rate
            mine = max(now, self._held_until, self._latest[0] + 1.0 if full else now)
            self._latest.append(mine)
        if mine > now:
            self._sleep(mine - now)

    def hold(self, seconds: float) -> None:
        """Start no call for some seconds."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)


class PacedControlPlane(ControlPlane):
    """A control plane whose calls wait for the pace, and are repeated if AGS reports too many requests.

    A refused request did nothing, so that its repetition is safe.
    """

    _paces: dict[tuple[str, str, str, str], Pace] = {}
    _paces_lock = threading.Lock()

    def __init__(self, connection: Connection) -> None:
        """Check the keys; nothing is sent."""
        super().__init__(connection)
        self._account = (connection.control_url, connection.region, connection.require_keys()[0])

    def call(self, action: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call an action at its pace."""
        pace = self._pace(action)
        send = super().call

        def at_its_moment() -> dict[str, Any]:
            pace.wait()
            return send(action, parameters)

        # The pause is for every caller, not only for this one.
        return persistently(
            at_its_moment, BACKOFF, repeat=lambda error: isinstance(error, ThrottledError), sleep=pace.hold
        )

    def _pace(self, action: str) -> Pace:
        with self._paces_lock:
            key = (*self._account, action)
            if key not in self._paces:
                self._paces[key] = Pace(RATES.get(action, OTHER_RATE) * SHARE)
            return self._paces[key]

    @classmethod
    def _reset_after_fork(cls) -> None:
        # A pace counts the requests of one process, and another thread may have held a lock at the fork.
        cls._paces, cls._paces_lock = {}, threading.Lock()


reset_in_children(PacedControlPlane._reset_after_fork)
