"""Messages of an execution that its client has not read yet, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

LIMIT = 32 << 20
"""Bytes, roughly, of output that wait for a client: the first and the last half of more."""

LONGEST_TEXT = 1 << 16
"""Characters of output in one message, and in one line for the client."""

Message = tuple[str, dict[str, Any]] | BaseException | None

_DROPPABLE = ("stream", "display_data", "update_display_data")


class Backlog:
    """A queue that never blocks its writer: of output that waits, the middle is dropped when there is too much.

    Values of last lines, errors and the end are never dropped.

    Args:
        limit: How many bytes may wait.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._half = limit // 2
        self._first: deque[tuple[Message, int]] = deque()
        self._last: deque[tuple[Message, int]] = deque()
        self._first_size = self._last_size = self._dropped = 0
        self._filled = asyncio.Event()

    def put_nowait(self, message: Message) -> None:
        """Add a message; text of any length becomes several messages."""
        if isinstance(message, tuple) and message[0] == "stream" and len(message[1]["text"]) > LONGEST_TEXT:
            kind, content = message
            text = content["text"]
            for start in range(0, len(text), LONGEST_TEXT):
                self._put((kind, {**content, "text": text[start : start + LONGEST_TEXT]}))
        else:
            self._put(message)
        self._filled.set()

    def _put(self, message: Message) -> None:
        size = _size(message)
        if not self._last and self._first_size + size <= self._half:
            self._first.append((message, size))
            self._first_size += size
        else:
            self._last.append((message, size))
            self._last_size += size
            self._shorten()

    async def get(self) -> Message:
        """Remove and return the oldest message; wait for one."""
        while self.empty():
            self._filled.clear()
            await self._filled.wait()
        return self.get_nowait()

    def get_nowait(self) -> Message:
        """Remove and return the oldest message.

        Raises:
            IndexError: The backlog is empty.
        """
        if not self._first:
            self._first, self._last = self._last, self._first
            self._first_size, self._last_size = self._last_size, 0
            if self._dropped:
                text, self._dropped = f"\n... {self._dropped:,} bytes left out ...\n", 0
                return ("stream", {"name": "stdout", "text": text})
        message, size = self._first.popleft()
        self._first_size -= size
        return message

    def empty(self) -> bool:
        """Return True if no message waits."""
        return not self._first and not self._last

    def _shorten(self) -> None:
        while self._last_size > self._half and len(self._last) > 1:
            message, size = self._last.popleft()
            self._last_size -= size
            if isinstance(message, tuple) and message[0] in _DROPPABLE:
                self._dropped += size
            else:
                self._first.append((message, size))
                self._first_size += size


def _size(message: Message) -> int:
    if not isinstance(message, tuple):
        return 0
    kind, content = message
    parts = [content.get("text", "")] if kind == "stream" else content.get("data", {}).values()
    # A message that is small still takes room.
    return 256 + sum(len(part) if isinstance(part, (str, list)) else 64 for part in parts)
