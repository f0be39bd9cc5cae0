"""One output stream of a durable command: what is kept of it, and its lines for the log."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.cloud.lines import LineSplitter

OnLine = Callable[[str, str], None]
"""Gets `stdout` or `stderr`, and a line of it, without its end, as `LineSplitter` gives it."""


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
        self._lines = LineSplitter()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, piece: bytes, final: bool = False) -> None:
        """Add what was read."""
        self.offset += len(piece)
        self.kept.add(piece)
        if self._on_line is None:
            return
        lines = self._lines.feed(self._decoder.decode(piece, final))
        if final:
            lines += self._lines.close()
        for line in lines:
            self._on_line(self._name, line)
