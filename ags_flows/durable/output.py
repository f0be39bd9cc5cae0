"""One output stream of a durable command: what is kept of it, and its lines for the log."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from ags_flows.cloud.head_and_tail import HeadAndTail

LONGEST_LINE = 1 << 16

OnLine = Callable[[str, str], None]
"""Gets `stdout` or `stderr`, and a line of it, without its end."""


class OutputStream:
    """How far a stream has been read, and the line that has no end yet.

    Args:
        name: `stdout` or `stderr`.
        limit: Bytes that are kept: head and tail of longer output.
        on_line: Gets each line.

    Attributes:
        kept: Head and tail of what has been read.
        offset: Bytes that have been read.
    """

    def __init__(self, name: str, limit: int, on_line: OnLine | None) -> None:
        self.kept = HeadAndTail(limit)
        self.offset = 0
        self._name = name
        self._on_line = on_line
        self._unfinished = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, piece: bytes, final: bool = False) -> None:
        """Add what was read."""
        self.offset += len(piece)
        self.kept.add(piece)
        if self._on_line is None:
            return
        text = self._unfinished + self._decoder.decode(piece, final)
        *lines, rest = text.split("\n")
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        if final and rest:
            lines.append(rest)
            rest = ""
        self._unfinished = rest
        for line in lines:
            self._on_line(self._name, line.rstrip("\r"))
