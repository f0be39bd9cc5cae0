"""The run's log, and how a command's output gets into it: line by line, masked, without flooding the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from ags_flows.run.redaction import Redactor

LINES_PER_SECOND = 100
BURST = 1_000
LONGEST_LINE = 4_000
LONGEST_PIECE = 1 << 16
PROGRESS_EVERY = 10.0

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[logging.Logger]"


def run_logger() -> Logger:
    """Return the logger of the run that is executing, or the package's own outside of runs."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("ags_flows")


_copy: ContextVar[Callable[[str, str], None] | None] = ContextVar("copy", default=None)


@contextmanager
def copied_output(to: Callable[[str, str], None]) -> Iterator[None]:
    """Give every line of output that is logged inside to a function too, whole and masked: such as to a terminal.

    Args:
        to: Gets `stdout` or `stderr`, and a line without its end.
    """
    token = _copy.set(to)
    try:
        yield
    finally:
        _copy.reset(token)


class ProgressLog:
    """Says how far a long transfer is: every ten seconds, so that short ones say nothing.

    Args:
        what: Such as `upload of data.csv`.
        clock: Seconds that only grow.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start now."""
        self._what = what
        self._clock = clock
        self._logger = run_logger()
        self._started = self._told = clock()

    def __call__(self, done: int, total: int) -> None:
        """Take how many bytes have been moved, and of how many."""
        now = self._clock()
        if now - self._told < PROGRESS_EVERY:
            return
        self._told = now
        speed = done / max(now - self._started, 1e-3)
        share = 100 * done // max(total, 1)
        self._logger.info(
            "%s: %.0f of %.0f MB (%s %%), %.0f MB/s", self._what, done / 1e6, total / 1e6, share, speed / 1e6
        )


class OutputLog:
    """Writes a command's lines to a logger, and leaves some out when there are more than a person could read.

    A burst of 1,000 lines passes, then 100 lines a second; how many were left out is said as soon as there is room
    again, and at the end. The Prefect server stores every line as a row: a chatty command would bury it.

    Args:
        logger: Where to.
        redactor: Masks what is secret.
        clock: Seconds that only grow.
    """

    def __init__(self, logger: Logger, redactor: Redactor, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with room for a whole burst."""
        self._logger = logger
        self._redactor = redactor
        self._unfinished: dict[str, str] = {}
        self._clock = clock
        self._room = float(BURST)
        self._at = clock()
        self._left_out = 0
        self._copy = _copy.get()
        self._lock = threading.Lock()

    def __call__(self, stream: str, line: str) -> None:
        """Log one line of `stdout` or `stderr`."""
        line = self._redactor.text(line)
        if self._copy is not None:
            self._copy(stream, line)
        with self._lock:
            now = self._clock()
            self._room = min(BURST, self._room + (now - self._at) * LINES_PER_SECOND)
            self._at = now
            if self._room < 1:
                self._left_out += 1
                return
            self._room -= 1
            self._say_left_out()
        text = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}... ({len(line):,} characters)"
        self._logger.info("%s%s", "! " if stream == "stderr" else "| ", text, extra={"is_output": True})

    def reader(self, stream: str) -> Callable[[str], None]:
        """Return a function that takes pieces of text, wherever they are cut, and logs whole lines."""

        def read(piece: str) -> None:
            *lines, rest = (self._unfinished.get(stream, "") + piece).split("\n")
            for line in lines:
                self(stream, line)
            while len(rest) > LONGEST_PIECE:
                self(stream, rest[:LONGEST_PIECE])
                rest = rest[LONGEST_PIECE:]
            self._unfinished[stream] = rest

        return read

    def close(self) -> None:
        """Log what has no line end yet, and say how many lines were left out."""
        for stream, rest in self._unfinished.items():
            if rest:
                self(stream, rest)
        self._unfinished.clear()
        with self._lock:
            self._say_left_out()

    def _say_left_out(self) -> None:
        if self._left_out:
            self._logger.info("... %s lines left out of the log", f"{self._left_out:,}")
            self._left_out = 0
