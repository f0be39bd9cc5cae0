"""One output stream of a durable command: its head and tail for the result, and its lines for the log."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.cloud.lines import LineSplitter, is_piece

OnLine = Callable[[str, str], None]
"""Called with `stdout` or `stderr`, and a line without its line end, as `LineSplitter` returns it."""


class OutputStream:
    """The read position of a stream, its head and tail, and its current incomplete line.

    Args:
        name: `stdout` or `stderr`.
        limit: Bytes to keep: head and tail of longer output.
        on_line: Called with each line.

    Attributes:
        kept: Head and tail of the data that was read.
        offset: Number of bytes that were read.
    """

    def __init__(self, name: str, limit: int, on_line: OnLine | None) -> None:
        self.kept = HeadAndTail(limit)
        self.offset = 0
        self._name = name
        self._on_line = on_line
        self._lines = LineSplitter()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._last = ""
        self._begins_cut = False

    def take(self, piece: bytes, final: bool = False) -> None:
        """Add data that was read. `final` ends the last line."""
        self.offset += len(piece)
        self.kept.add(piece)
        if self._on_line is None:
            return
        text = self._decoder.decode(piece, final)
        if self._begins_cut:
            _, end, text = text.partition("\n")
            self._begins_cut = not end
        lines = self._lines.feed(text)
        if final:
            lines += self._lines.close()
        for line in lines:
            self._on_line(self._name, line)
            self._last = line

    def skip(self, size: int) -> int:
        """Skip what neither the result nor the end of the log needs, and return how many bytes that is.

        The lines at both ends of the gap are left out of the log: half of a secret could not be masked there.

        Args:
            size: Bytes of the whole output.
        """
        count = self.kept.unneeded(size)
        if not count:
            return 0
        self.offset += count
        self.kept.skip(count)
        self._lines.close()
        self._decoder.reset()
        self._begins_cut = True
        if self._on_line is not None and self._last and is_piece(self._last):
            self._on_line(self._name, "")
        return count
