"""Who is at work on a batch: one run at a time, so that two with the same place for results do no item twice.

Whoever works writes down who it is, again and again; whoever finds that waits until it is given up, or is not renewed
any more. No clocks are compared, since the other one may be on another machine: only changes are looked for.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from ags_flows.batch.storage import Storage, telling
from ags_flows.run.logs import Logger

CLAIM = "claim.json"

BEAT = 10.0
"""Seconds after which a claim is renewed."""

LOST = 45.0
"""Seconds without a renewal after which whoever made a claim counts as dead."""

LOOK = 1.0

TORN = 0.05
"""Seconds in which a claim is written, where it is not written whole or not at all."""


@contextmanager
def claimed(storage: Storage, run: str, logger: Logger) -> Iterator[None]:
    """Be the only run that works on a batch; wait for another one that does.

    A retry of the same run does not wait for what it retries. A claim of a process of this machine that is gone does
    not hold either. Two that begin in the same moment may both go on: few stores have anything to decide that with.

    Args:
        storage: Where the batch is kept.
        run: Who works on it: the same in every attempt.
        logger: Is told that, and for whom, is waited.
    """
    mine = {"run": run, "host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
    with telling(storage, "used"):
        _take(storage, mine, logger)
    over = threading.Event()
    work = (_renew, storage, mine, over, logger)
    beat = threading.Thread(target=copy_context().run, args=work, name="ags-batch-claim", daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        _give_up(storage, mine, logger)


def _take(storage: Storage, mine: dict[str, Any], logger: Logger) -> None:
    seen, since, told = b"", time.monotonic(), False
    while True:
        found = storage.read(CLAIM)
        if not _read(found):
            # Nobody's, or just being written.
            time.sleep(TORN)
            found = storage.read(CLAIM)
        if found != seen:
            seen, since = found, time.monotonic()
        if not _holds(found, mine) or time.monotonic() - since > LOST:
            _write(storage, mine, 0)
            # Of two that come at the same moment the last one to write has it.
            if _read(storage.read(CLAIM)).get("token") == mine["token"]:
                return
            continue
        if not told:
            other = _read(found)
            logger.warning(
                "Run %s (process %s on %s) is at work on these results: waiting until it is over, or gives no sign "
                "of life for %.0f s",
                *(other.get(key) for key in ("run", "process", "host")),
                LOST,
            )
            told = True
        time.sleep(LOOK)


def _holds(found: bytes, mine: dict[str, Any]) -> bool:
    claim = _read(found)
    if not claim or claim.get("run") == mine["run"]:
        return False
    return claim.get("host") != mine["host"] or _lives(claim.get("process"))


def _lives(process: object) -> bool:
    if not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _renew(storage: Storage, mine: dict[str, Any], over: threading.Event, logger: Logger) -> None:
    beats = 0
    while not over.wait(BEAT):
        beats += 1
        try:
            other = _read(storage.read(CLAIM))
            if other.get("token", mine["token"]) != mine["token"]:
                # This process slept, or could not reach the store, for longer than `LOST`.
                logger.warning("Run %s has taken these results over, and goes on with them", other.get("run"))
                return
            _write(storage, mine, beats)
        except Exception:  # noqa: BLE001,S112 - each store has errors of its own, and the next time it may go
            continue


def _give_up(storage: Storage, mine: dict[str, Any], logger: Logger) -> None:
    try:
        if _read(storage.read(CLAIM)).get("token") == mine["token"]:
            storage.remove(CLAIM)
    except Exception as error:  # noqa: BLE001 - each store has errors of its own
        logger.warning("The claim at %s could not be given up: %s", storage.where(CLAIM), error)


def _write(storage: Storage, mine: dict[str, Any], beats: int) -> None:
    storage.write(CLAIM, json.dumps({**mine, "beats": beats}).encode())


def _read(content: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(content or b"{}")
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}
