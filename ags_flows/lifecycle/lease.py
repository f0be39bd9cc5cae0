"""The timeout of an instance as a lease: short, and renewed while its owner lives.

One thread renews all leases of this process. When the process dies, so does the thread, and AGS ends the sandbox by
itself when the lease is over: nobody has to act.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ags_flows.errors import AGSFlowsError, InstanceGoneError, NotFoundError

RENEW_AT = 0.5
"""The part of a lease's life after which it is renewed."""

RETRY_AT = 0.1
"""After a renewal that failed: the next attempt comes after this part of what is left of the lease."""

SHORTEST_PAUSE = 0.5


@dataclass(eq=False)
class Lease:
    """A lease that is being kept. `release()` ends the renewals, not the instance."""

    instance_id: str
    seconds: float
    renew: Callable[[], None]
    on_trouble: Callable[[str], None]
    ends: float
    released: threading.Event = field(default_factory=threading.Event)
    gone: bool = False
    failures: int = 0

    def release(self) -> None:
        """Stop renewing."""
        self.released.set()


class LeaseKeeper:
    """Renews leases in one thread, which lives as long as there are any.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep nothing yet."""
        self._clock = clock
        self._due: list[tuple[float, int, Lease]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(
        self,
        instance_id: str,
        seconds: float,
        renew: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> Lease:
        """Keep an instance alive until the lease is released.

        Args:
            instance_id: The instance, whose timeout has just been set to `seconds`.
            seconds: The length of the lease.
            renew: Restarts the instance's timeout.
            on_trouble: Gets a sentence when a renewal fails, and when the lease is lost.
        """
        lease = Lease(instance_id, seconds, renew, on_trouble, self._clock() + seconds)
        with self._changed:
            self._schedule(lease, seconds * RENEW_AT)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ags-leases", daemon=True)
                self._thread.start()
            self._changed.notify()
        return lease

    def _schedule(self, lease: Lease, pause: float) -> None:
        heapq.heappush(self._due, (self._clock() + pause, next(self._order), lease))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._due = [item for item in self._due if not item[2].released.is_set()]
                heapq.heapify(self._due)
                if not self._due:
                    self._thread = None
                    return
                pause = self._due[0][0] - self._clock()
                if pause > 0:
                    self._changed.wait(min(pause, 1.0))
                    continue
                lease = heapq.heappop(self._due)[2]
            pause_before_next = self._renew(lease)
            if pause_before_next is not None:
                with self._changed:
                    self._schedule(lease, pause_before_next)

    def _renew(self, lease: Lease) -> float | None:
        """Renew once; return the pause before the next time, None when there is none."""
        before = self._clock()
        try:
            lease.renew()
        except (NotFoundError, InstanceGoneError) as error:
            lease.gone = True
            if not lease.released.is_set():
                lease.on_trouble(f"The sandbox {lease.instance_id} has ended, its lease with it: {error}")
            return None
        except AGSFlowsError as error:
            return self._after_failure(lease, str(error))
        except Exception as error:  # noqa: BLE001 - one lease's fault must not end the thread of all
            return self._after_failure(lease, repr(error))
        lease.failures = 0
        lease.ends = before + lease.seconds
        return lease.seconds * RENEW_AT

    def _after_failure(self, lease: Lease, told: str) -> float | None:
        left = lease.ends - self._clock()
        lease.failures += 1
        if lease.released.is_set():
            return None
        if left <= 0:
            lease.gone = True
            lease.on_trouble(
                f"The lease of sandbox {lease.instance_id} is over after {lease.failures} renewals that failed; "
                f"AGS ends the sandbox now. The last error: {told}"
            )
            return None
        lease.on_trouble(
            f"The lease of sandbox {lease.instance_id} could not be renewed and ends in {left:.0f} s; trying again. "
            f"The error: {told}"
        )
        return max(SHORTEST_PAUSE, left * RETRY_AT)


_keeper = LeaseKeeper()


def keep_lease(instance_id: str, seconds: float, renew: Callable[[], None], on_trouble: Callable[[str], None]) -> Lease:
    """Keep an instance alive by the one keeper of this process."""
    return _keeper.keep(instance_id, seconds, renew, on_trouble)
