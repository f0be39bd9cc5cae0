"""The run's log, and how the output of a command gets into it: line by line, masked, at a limited rate."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from ags_flows.cloud.lines import LineSplitter, is_piece
from ags_flows.run.redaction import Redactor, StreamRedactor
from ags_flows.run.views import SOFT_BREAK

LINES_PER_SECOND = 100
BURST = 1_000
LONGEST_LINE = 4_000
PROGRESS_EVERY = 10.0
STATES_EVERY = 5.0
"""Seconds between logged states of a progress bar."""

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
    r"""Copy all output that is logged inside of the block, whole and masked, such as to a terminal.

    Args:
        to: Gets `stdout` or `stderr`, and text: a line with its end (`\n` or `\r`), or a piece of a very long line.
    """
    token = _copy.set(to)
    try:
        yield
    finally:
        _copy.reset(token)


class ProgressLog:
    """Logs the progress of a long transfer every ten seconds; short ones log nothing.

    Args:
        what: Such as `upload of data.csv`.
        clock: Seconds that only grow.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._logger = run_logger()
        self._started = self._logged = clock()

    def __call__(self, done: int, total: int) -> None:
        """Take how many bytes have been moved, and of how many."""
        now = self._clock()
        if now - self._logged < PROGRESS_EVERY:
            return
        self._logged = now
        speed = done / max(now - self._started, 1e-3)
        share = 100 * done // max(total, 1)
        self._logger.info(
            "%s: %.0f of %.0f MB (%s %%), %.0f MB/s", self._what, done / 1e6, total / 1e6, share, speed / 1e6
        )


@dataclass
class _Stream:
    """What is known of one stream of a command.

    Attributes:
        splitter: Makes lines of pieces of text.
        state: The latest state of a progress bar that is not logged yet.
        logged_state: The last state of the bar that was logged.
        state_at: When a state was logged last.
        head: The first piece of a long line that has no end yet.
        length: Characters of that line.
        masked: Masks the copy of that line.
        wraps: Whether the last line that was logged ends with a soft line break.
    """

    splitter: LineSplitter = field(default_factory=LineSplitter)
    state: str | None = None
    logged_state: str | None = None
    state_at: float = -math.inf
    head: str | None = None
    length: int = 0
    masked: StreamRedactor | None = None
    wraps: bool = False


class OutputLog:
    """Writes a command's lines to a logger, and leaves some out when there are more than a person could read.

    A burst of 1,000 lines passes, then 100 lines a second; how many were left out is logged as soon as there is room
    again, and at the end. The Prefect server stores every line as a row: a chatty command would bury it. A progress
    bar, which rewrites its line after a carriage return, is logged every five seconds, and in its final state. Of a
    line of more than 4,000 characters the log gets the start and the length.

    Lines are masked here, before they are cut.

    Args:
        logger: Where to.
        redactor: Masks what is secret.
        clock: Seconds that only grow.
    """

    def __init__(self, logger: Logger, redactor: Redactor, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._redactor = redactor
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)
        self._clock = clock
        self._room = float(BURST)
        self._at = clock()
        self._left_out = 0
        self._copy = _copy.get()
        self._lock = threading.Lock()

    def __call__(self, stream: str, line: str) -> None:
        r"""Take one line of `stdout` or `stderr`, as `LineSplitter` gives it.

        Args:
            stream: `stdout` or `stderr`.
            line: A line without its end, a state of a progress bar with `\r` at its end, or a piece of a long line.
        """
        with self._lock:
            known = self._streams[stream]
            if self._copy is not None:
                self._copy(stream, self._for_copy(known, line))
            if known.head is not None or is_piece(line):
                self._take_piece(stream, known, line)
            elif line[-1:] == "\r":
                self._take_state(stream, known, line[:-1])
            else:
                self._take_line(stream, known, line)

    def reader(self, stream: str) -> Callable[[str], None]:
        """Return a function that takes pieces of text, wherever they are cut, and logs whole lines."""
        splitter = self._streams[stream].splitter

        def read(piece: str) -> None:
            for line in splitter.feed(piece):
                self(stream, line)

        return read

    def close(self) -> None:
        """Log what has no line end yet, and how many lines were left out."""
        for stream, known in list(self._streams.items()):
            for line in known.splitter.close():
                self(stream, line)
            if known.head is not None:
                self(stream, "")
            with self._lock:
                if known.state is not None:
                    self._log(stream, known.state)
                    known.state = None
        with self._lock:
            self._log_left_out()

    def _for_copy(self, known: _Stream, line: str) -> str:
        r"""Return a line for the copy: masked, with its end, which is `\n`, `\r`, or nothing after a piece."""
        if is_piece(line):
            known.masked = known.masked or self._redactor.stream()
            return known.masked.feed(line)
        end = "" if line[-1:] == "\r" else "\n"
        if known.masked is None:
            return self._redactor.text(line) + end
        masked, known.masked = known.masked, None
        return masked.feed(line) + masked.close() + end

    def _take_piece(self, stream: str, known: _Stream, line: str) -> None:
        known.head = line if known.head is None else known.head
        known.length += len(line)
        if is_piece(line):
            return
        head, length = known.head, known.length
        known.head, known.length = None, 0
        self._log(stream, head, length)

    def _take_state(self, stream: str, known: _Stream, state: str) -> None:
        if not state.strip():
            return
        known.state = state
        now = self._clock()
        if now - known.state_at >= STATES_EVERY and state != known.logged_state:
            known.state_at = now
            known.logged_state, known.state = state, None
            self._log(stream, state)

    def _take_line(self, stream: str, known: _Stream, line: str) -> None:
        state, logged = known.state, known.logged_state
        known.state = known.logged_state = None
        if state is None and logged is None:
            self._log(stream, line)
            return
        # The line ends a progress bar: an empty one leaves the last state on a terminal.
        final = line if line.strip() else state
        if final is not None and final != logged:
            self._log(stream, final)

    def _log(self, stream: str, line: str, length: int = 0) -> None:
        """Log a line, masked and then cut, if there is room.

        Args:
            stream: `stdout` or `stderr`.
            line: The line, or the start of a long one.
            length: Characters of the whole line, of a long one.
        """
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        self._log_left_out()
        known = self._streams[stream]
        text = self._redactor.text(line, begins_cut=known.wraps, ends_cut=length > len(line))
        known.wraps = line.endswith(SOFT_BREAK)
        length = length or len(line)
        if length > LONGEST_LINE:
            text = f"{text[:LONGEST_LINE]}... ({length:,} characters)"
        self._logger.info("%s%s", "! " if stream == "stderr" else "| ", text, extra={"is_output": True})

    def _log_left_out(self) -> None:
        if self._left_out:
            self._logger.info("... %s lines left out of the log", f"{self._left_out:,}")
            self._left_out = 0
