"""Texts that programs have wrapped into lines, as one line again."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]

SOFT_BREAK = "="
"""What quoted-printable has before a line end that is not part of the text."""

_SOFT = re.compile(f"{SOFT_BREAK}\r?\n")

# A line end, also as an escape, with what is around it: quotes, commas, an operator, a margin, a number of a line.
_HARD = re.compile(r"(?:\r\n?|\n|(?:\\+r)?\\+n)[ \t>|#]{0,16}(?:\d{1,7}[:\t |]{1,4})?['\"]?")
_BEFORE_HARD = "\\'\",+ \t"


class Unwrapped:
    """A text without the ends of its lines, and where its characters are in the original.

    Args:
        text: The original.
        wrap: What is left out.
        before: Characters that are left out before it.

    Attributes:
        text: The text; empty if nothing is left out.
    """

    def __init__(self, text: str, wrap: re.Pattern[str], before: str) -> None:
        pieces: list[str] = []
        self._at: list[int] = []
        self._left_out: list[int] = []
        at = size = 0
        for found in wrap.finditer(text):
            pieces.append(text[at : found.start()].rstrip(before))
            size += len(pieces[-1])
            at = found.end()
            self._at.append(size)
            self._left_out.append(at - size)
        self.text = "".join([*pieces, text[at:]]) if pieces else ""

    @classmethod
    def soft(cls, text: str) -> Unwrapped:
        """Return a text without the soft line breaks of quoted-printable."""
        return cls(text, _SOFT, "")

    @classmethod
    def hard(cls, text: str) -> Unwrapped:
        """Return a text without all ends of lines."""
        return cls(text, _HARD, _BEFORE_HARD)

    def spans(self, spans: Iterable[Span]) -> Iterator[Span]:
        """Yield where spans are in the original."""
        return ((self._original(start), self._original(end - 1) + 1) for start, end in spans)

    def _original(self, at: int) -> int:
        before = bisect_right(self._at, at)
        return at + (self._left_out[before - 1] if before else 0)
