"""One run at a time works on a results location, and a batch without `results=` has a separate location.

The run at work keeps a claim in the location and renews it. A later attempt of the same run takes the claim over
immediately; any other run waits until the claim has ended, or was not renewed for a while. No clocks, host names or
process ids are compared: only changes of the claim count. A run that has lost its claim, or whose location was deleted,
stops before its next record.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from ags_flows.batch.storage import ResultsGoneError, Storage, repeated, reported
from ags_flows.cloud.retry import look
from ags_flows.errors import AGSFlowsError, ConflictError, SupersededError, WaitCancelledError
from ags_flows.ownership import Holder, Step, relation
from ags_flows.run.logs import Logger

CLAIM = "claim.json"

BEAT = 3.0
"""Seconds between two renewals of a claim."""

WATCH = 1.0
"""Seconds between two looks at whether another run has taken the claim over."""

FRESH = 0.25
"""Seconds for which a look counts: a record that is written later looks again."""

LOST = 12.0
"""Seconds without a renewal after which another run takes a claim over."""

LOOK = 0.5

SETTLE = 0.05
"""Seconds between the writing of a claim and the look at whether another run wrote one at the same moment."""

_lock = threading.Lock()
_log = logging.getLogger("ags_flows")


class Claim:
    """The claim of a run on a results location. Thread-safe.

    Args:
        storage: The location.
        holder: The call that works on it.
        logger: Gets what happens to the claim.

    Attributes:
        lost: Why this run must not record anything any more, None while it may.
    """

    def __init__(self, storage: Storage, holder: Holder, logger: Logger) -> None:
        self.lost: AGSFlowsError | None = None
        self._storage = storage
        self._holder = holder
        self._logger = logger
        self._token = uuid.uuid4().hex
        self._beats = itertools.count()
        self._renewed = 0.0
        self._looked = 0.0
        self._renewing = threading.Lock()

    def check(self) -> None:
        """Raise an error if this run must not record anything any more. Does not repeat a read that fails.

        Raises:
            SupersededError: A later attempt of the same run works on the location.
            ConflictError: Another run does.
            ResultsGoneError: The location was deleted.
            WaitCancelledError: The batch has ended.
        """
        if self.lost is None:
            self.renew(FRESH)
        if self.lost is not None:
            raise self.lost

    def take(self) -> None:
        """Claim the location; wait for another run that works on it.

        Raises:
            SupersededError: A later attempt of the same run works on it.
        """
        seen, since, logged = b"", time.monotonic(), False
        while True:
            found = self._read()
            if not _parsed(found):
                # There is no claim, or it is being written.
                time.sleep(SETTLE)
                found = self._read()
            if found != seen:
                seen, since = found, time.monotonic()
            if self._is_free(found) or time.monotonic() - since > LOST:
                repeated(self._storage, lambda: self._write(ended=False), first=True)
                time.sleep(SETTLE)
                # Of two runs that begin in the same moment, the one that writes last has the claim.
                if _parsed(self._read()).get("token") == self._token:
                    return
                continue
            if not logged:
                self._logger.warning(
                    "Another run (%s) is at work on these results: waiting until it has ended, or has given no sign "
                    "of life for %.0f s.",
                    _parsed(found).get("holder"),
                    LOST,
                )
                logged = True
            time.sleep(LOOK)

    def reserve(self) -> None:
        """Record the holder in the location, before the work on it begins."""
        self._write(ended=True)

    def renew(self, fresh: float = 0.0) -> None:
        """Look whether the claim is lost, and renew it from time to time.

        Args:
            fresh: Seconds for which an earlier look counts.
        """
        with self._renewing:
            started = time.monotonic()
            if self.lost is not None or started - self._looked < fresh:
                return
            content = self._storage.read(CLAIM) or look(lambda: self._storage.read(CLAIM) or None, 3, SETTLE)
            found = _parsed(content or b"")
            if content is None:
                self.lost = ResultsGoneError(
                    f"results: {self._storage.where('')} was deleted while the batch was at work.",
                    hint="Its records are lost. Run the batch again: it does what is not recorded.",
                )
            elif found.get("token", self._token) != self._token:
                self._meet(Holder.parse(str(found.get("holder", ""))))
            elif started - self._renewed >= BEAT:
                self._write(ended=False)
            self._looked = started

    def _meet(self, other: Holder | None) -> None:
        """Lose the claim to another holder, or take it back from an earlier attempt that slept before it wrote."""
        found = relation(self._holder, other) if other is not None else "stranger"
        if found == "superseded":
            self._write(ended=False)
            return
        kind = SupersededError if found == "stale" else ConflictError
        self.lost = kind(
            f"results: another run ({other}) has taken {self._storage.where('')} over.",
            hint="It goes on with what is not done. This run ends here.",
        )

    def end(self) -> None:
        """Give the claim up. Its holder stays recorded: see `location_of`."""
        # A thread of the batch that ends later records nothing any more.
        self.lost = self.lost or WaitCancelledError("The batch has ended.")
        try:
            with self._renewing:
                if _parsed(self._storage.read(CLAIM)).get("token") == self._token:
                    self._write(ended=True)
        except Exception as error:  # noqa: BLE001 - each store raises other errors
            self._logger.warning("The claim at %s could not be given up: %s", self._storage.where(CLAIM), error)

    def _read(self) -> bytes:
        return repeated(self._storage, lambda: self._storage.read(CLAIM), first=True)

    def _is_free(self, found: bytes) -> bool:
        claim = _parsed(found)
        theirs = Holder.parse(str(claim.get("holder", "")))
        if theirs is None:
            return True
        found_relation = relation(self._holder, theirs)
        if found_relation == "stale":
            raise SupersededError(f"A later attempt of this run ({theirs}) works on {self._storage.where('')}.")
        return bool(claim.get("ended")) or found_relation in ("same", "superseded")

    def _write(self, *, ended: bool) -> None:
        claim = {"holder": str(self._holder), "token": self._token, "beats": next(self._beats), "ended": ended}
        started = time.monotonic()
        self._storage.write(CLAIM, json.dumps(claim).encode())
        self._renewed = self._looked = started


@contextmanager
def claimed(storage: Storage, holder: Holder, logger: Logger, on_lost: Callable[[], None]) -> Iterator[Claim]:
    """Hold the claim on a results location for the length of a block.

    Args:
        storage: The location.
        holder: The call that works on it.
        logger: Gets what happens to the claim.
        on_lost: Called once, from another thread, if another run takes the claim over or the location is deleted.

    Raises:
        ConfigurationError: The location cannot be read or written.
        SupersededError: A later attempt of the same run works on it.
    """
    claim = Claim(storage, holder, logger)
    with reported(storage, "used"):
        claim.take()
    ended = threading.Event()
    work = (_keep, claim, ended, on_lost)
    keeper = threading.Thread(target=copy_context().run, args=work, name="ags-batch-claim", daemon=True)
    keeper.start()
    try:
        yield claim
    finally:
        ended.set()
        keeper.join()
        claim.end()


def location_of(storage: Storage, step: Step, fit: Callable[[Storage], int]) -> tuple[Storage, int]:
    """Return the location of a batch: one that an earlier attempt left, or the first number of its family that is free.

    The number distinguishes batches of one run that do the same. They may begin in another order in a retry: of the
    locations that were left, the batch gets the one that fits best, and none that belongs to other items.

    A storage has nothing that decides between two processes. Batches of one run that do the same, and that several
    processes begin at the same moment, need separate names (`step=`).

    Args:
        storage: Where batches of the run are kept.
        step: The batch.
        fit: Returns how well the records of a location fit the items, 0 if they do not.

    Raises:
        SupersededError: A later attempt of the run works on the batch.
    """
    left: list[tuple[int, Storage, int]] = []
    with _lock:
        for number in itertools.count():
            location = storage.under(f"{step.family}/{number}/")
            content = repeated(location, partial(location.read, CLAIM), first=True)
            if not content:
                break
            theirs = Holder.parse(str(_parsed(content).get("holder", "")))
            found = relation(step.holder, theirs) if theirs is not None else "superseded"
            if found == "same":
                return location, number
            if found == "stale":
                raise SupersededError(
                    f"A later attempt of this run ({theirs}) works on the batch at {location.where('')}."
                )
            if found == "superseded" and (fits := fit(location)):
                left.append((fits, location, number))
        # Of those that fit equally well, the first one.
        _, location, number = max(left, key=lambda one: one[0], default=(0, location, number))
        repeated(location, Claim(location, step.holder, _log).reserve, first=True)
    return location, number


def _keep(claim: Claim, ended: threading.Event, on_lost: Callable[[], None]) -> None:
    while not ended.wait(min(WATCH, BEAT)):
        try:
            claim.renew()
        except Exception:  # noqa: BLE001,S112 - each store raises other errors; the next renewal may succeed
            continue
        if claim.lost is not None:
            on_lost()
            return


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(content or b"{}")
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}
