"""The request log: one line for each request, and the latest ones for the status page."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger("ags_flows.emulator")

_KEPT = 200


@dataclass(frozen=True)
class Entry:
    """One request.

    Args:
        at: When it came, in seconds since 1970, by the machine's clock.
        plane: ``cloud``, ``e2b``, ``sandbox``, ``control`` or ``page``.
        operation: What was asked.
        outcome: The status or error code.
        seconds: How long it took.
        detail: Its request id, or the sandbox it was for.
    """

    at: float
    plane: str
    operation: str
    outcome: str
    seconds: float
    detail: str = ""


class Journal:
    """The requests of one emulator."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self.count = 0

    def note(self, plane: str, operation: str, outcome: str, began: float, detail: str = "") -> None:
        """Note a request whose response was sent.

        Args:
            plane: See `Entry`.
            operation: See `Entry`.
            outcome: See `Entry`.
            began: `time.monotonic` of its arrival.
            detail: See `Entry`.
        """
        seconds = time.monotonic() - began
        self._entries.append(Entry(time.time() - seconds, plane, operation, outcome, seconds, detail))
        self.count += 1
        # Values of clients are shown with repr if they could break the line.
        shown = operation if operation.isprintable() else repr(operation)
        logger.info("%-7s %s -> %s %.1f ms %s", plane, shown, outcome, seconds * 1000, detail)

    def latest(self, count: int = _KEPT) -> list[dict[str, Any]]:
        """Return the latest requests, newest first, as JSON values."""
        return [asdict(entry) for entry in list(self._entries)[-count:][::-1]]
