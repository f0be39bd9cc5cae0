"""Output of unknown length in bounded memory: its head and its tail."""

from __future__ import annotations

import re
from collections import deque

LONGEST_WORD = 4096
"""Bytes of a word that is left out whole at a cut; a longer one is cut."""

LEFT_OUT = re.compile(r"\n\.\.\. [\d,]+ bytes left out \.\.\.\n")
"""The line between head and tail."""

_CUT_END = re.compile(rb"[ \t\r\n]([^ \t\r\n]*)\Z")
_CUT_START = re.compile(rb"[^ \t\r\n]*(?=[ \t\r\n])")
_PART_OF_CHARACTER = re.compile(rb"[\xc2-\xdf]\Z|[\xe0-\xef][\x80-\xbf]?\Z|[\xf0-\xf4][\x80-\xbf]{0,2}\Z")
_REST_OF_CHARACTER = re.compile(rb"[\x80-\xbf]{0,3}")


class HeadAndTail:
    """Keeps the first and the last half of a limit, and counts all bytes.

    Where the middle is left out, a word that is cut is left out as well, up to 4 kB of it, and so is a character.

    Args:
        limit: How many bytes may be kept; 0 keeps nothing and counts.
    """

    def __init__(self, limit: int) -> None:
        self._head_room = limit // 2
        self._tail_room = limit - limit // 2
        self._head: list[bytes] = []
        self._after_head = b""
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take a piece of the output."""
        self.size += len(piece)
        if self._head_room:
            taken = piece[: self._head_room]
            self._head.append(taken)
            self._head_room -= len(taken)
            piece = piece[len(taken) :]
        if not piece or not self._tail_room:
            return
        self._after_head = self._after_head or piece[:1]
        self._tail.append(piece)
        self._tail_size += len(piece)
        # One byte more than is kept: it shows whether a word is cut.
        while self._tail_size - len(self._tail[0]) > self._tail_room:
            self._tail_size -= len(self._tail.popleft())

    def unneeded(self, size: int) -> int:
        """Return how many of the next bytes are in neither head nor tail, of an output of `size` bytes in all."""
        return 0 if self._head_room else max(0, size - self.size - self._tail_room - 1)

    def skip(self, count: int) -> None:
        """Count bytes that are not taken, as many as `unneeded` has returned."""
        self.size += count
        self._tail.clear()
        self._tail_size = 0

    @property
    def truncated(self) -> bool:
        """Whether something was left out in the middle."""
        return self.size > sum(map(len, self._head)) + self._tail_room

    def text(self) -> str:
        """Return all of it, or head and tail with a line between that gives the number of bytes left out."""
        head, tail = b"".join(self._head), b"".join(self._tail)
        if not self.truncated:
            return (head + tail).decode("utf-8", "replace")
        head = _without_cut_end(head, self._after_head)
        at = len(tail) - self._tail_room
        tail = _without_cut_start(tail[at:], tail[at - 1 : at])
        missing = self.size - len(head) - len(tail)
        return (
            f"{head.decode('utf-8', 'replace')}\n... {missing:,} bytes left out ...\n{tail.decode('utf-8', 'replace')}"
        )


def _without_cut_end(head: bytes, following: bytes) -> bytes:
    if not following.isspace():
        word = _CUT_END.search(head, max(0, len(head) - LONGEST_WORD))
        if word:
            return head[: word.start(1)]
    part = _PART_OF_CHARACTER.search(head, max(0, len(head) - 3))
    return head[: part.start()] if part else head


def _without_cut_start(tail: bytes, before: bytes) -> bytes:
    if before and not before.isspace():
        word = _CUT_START.match(tail, 0, LONGEST_WORD)
        if word:
            return tail[word.end() :]
    rest = _REST_OF_CHARACTER.match(tail)
    return tail[rest.end() :] if rest else tail
