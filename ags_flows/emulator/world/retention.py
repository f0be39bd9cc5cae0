"""Instances that have ended: listed for a while, then forgotten."""

from __future__ import annotations

from collections.abc import Callable

from ags_flows.emulator.world.clock import Alarm, Clock

MOST = 1_000
"""Ended instances that are listed; of more, those that ended first are forgotten early."""


class Retention:
    """Forgets each instance that has ended after a time, and the oldest ones early when there are too many.

    Args:
        clock: The emulator's clock.
        seconds: For how long an instance stays listed after its end.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._listed: dict[str, tuple[Alarm, Callable[[], None]]] = {}

    def __len__(self) -> int:
        """Return how many ended instances are listed."""
        return len(self._listed)

    def add(self, instance_id: str, ended_at: float, forget: Callable[[], None]) -> None:
        """List an instance that has ended.

        Args:
            instance_id: Its id.
            ended_at: When it ended, by the emulator's clock.
            forget: Removes it from all lists.
        """
        alarm = self._clock.schedule(ended_at + self._seconds, lambda: self._drop(instance_id))
        self._listed[instance_id] = (alarm, forget)
        while len(self._listed) > MOST:
            self._drop(next(iter(self._listed)))

    def clear(self) -> None:
        """Forget nothing more: all instances have been removed."""
        for alarm, _ in self._listed.values():
            alarm.cancel()
        self._listed.clear()

    def _drop(self, instance_id: str) -> None:
        alarm, forget = self._listed.pop(instance_id)
        alarm.cancel()
        forget()
