"""Output of unknown length in bounded memory: its head and its tail."""

from __future__ import annotations

from collections import deque


class HeadAndTail:
    """Keeps the first and the last half of a limit, and counts what there was.

    Args:
        limit: How many bytes may be kept; 0 keeps nothing and counts.
    """

    def __init__(self, limit: int) -> None:
        """Start empty."""
        self._head_room = limit // 2
        self._tail_room = limit - limit // 2
        self._head: list[bytes] = []
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
        self._tail.append(piece)
        self._tail_size += len(piece)
        while self._tail_size - len(self._tail[0]) >= self._tail_room:
            self._tail_size -= len(self._tail.popleft())

    @property
    def truncated(self) -> bool:
        """Whether something was left out in the middle."""
        return self.size > sum(map(len, self._head)) + self._tail_room

    def text(self) -> str:
        """Return all of it, or head and tail with a line between that says how much is left out."""
        head, tail = b"".join(self._head), b"".join(self._tail)
        tail = tail[max(0, len(tail) - self._tail_room) :]
        if not self.truncated:
            return (head + tail).decode("utf-8", "replace")
        missing = self.size - len(head) - len(tail)
        return (
            f"{head.decode('utf-8', 'replace')}\n... {missing:,} bytes left out ...\n{tail.decode('utf-8', 'replace')}"
        )
