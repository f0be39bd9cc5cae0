"""Secrets in base64 and hex that programs have wrapped into lines, or separated into groups.

Each line may be all that is known: a line of a log is masked alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ags_flows.run.parts import Parts
from ags_flows.run.spellings import hex_spellings, wrapped_spellings

NARROWEST_BASE64, WIDEST_BASE64 = 16, 256
"""Columns at which programs wrap base64: openssl at 64, coreutils and MIME at 76."""

SHORTEST_HEX = 8
"""Digits of the shortest part of a secret that is masked in hex: four bytes."""

# The first base64 of a line, after at most a margin such as `> ` or a quote; and the last one, of a reversed text. Any
# text may come before the first line of base64, and after its last one.
_FIRST = re.compile(r"^[^A-Za-z0-9+/_=\n-]{0,16}([A-Za-z0-9+/_-]{4,})", re.MULTILINE)
_LAST = re.compile(r"^[^A-Za-z0-9+/_\n-]{0,16}([A-Za-z0-9+/_-]{4,})", re.MULTILINE)

# Bytes with separators, as in `70 61`, `70:61`, `\x70\x61`, `%70%61` and `0x70, 0x61`, also where they are wrapped.
_HEX = re.compile(r"(?:(?:\\x|\\u00|0x|%|&#x)?[0-9A-Fa-f]{2}[\s:;,-]{0,4}){4,}")
_DIGIT = re.compile(r"\\x|\\u00|0x|([0-9A-Fa-f])")

Span = tuple[int, int]


class Encoded:
    """Finds parts of secrets in base64 and hex.

    Args:
        secrets: The values.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        secrets = list(secrets)
        self._base64 = Parts({form for secret in secrets for form in wrapped_spellings(secret)})
        self._hex = Parts({form for secret in secrets for form in hex_spellings(secret)})

    def spans(self, text: str) -> Iterator[Span]:
        """Yield where parts of secrets are."""
        if self._base64.forms:
            yield from self._in_base64(text)
        if self._hex.forms:
            for found in _HEX.finditer(text):
                yield from self._in_hex(found[0], found.start())

    def _in_base64(self, text: str) -> Iterator[Span]:
        size = len(text)
        firsts = [found.span(1) for found in _FIRST.finditer(text)]
        lasts = [(size - found.end(1), size - found.start(1)) for found in _LAST.finditer(text[::-1])]
        for begins, (start, end) in [*((True, span) for span in firsts), *((False, span) for span in lasts)]:
            if end - start > WIDEST_BASE64:
                continue
            core = text[start:end]
            padded = end + len(text[end : end + 2]) - len(text[end : end + 2].lstrip("="))
            if end - start >= NARROWEST_BASE64 and self._base64.has(core):
                yield start, padded
            elif begins:
                known = self._base64.at_start(core)
                yield start, padded if known == len(core) else start + known
            else:
                yield start + self._base64.at_end(core), end

    def _in_hex(self, text: str, at: int) -> Iterator[Span]:
        positions = [digit.start(1) for digit in _DIGIT.finditer(text) if digit[1]]
        digits = "".join(text[position] for position in positions).lower()

        def span(start: int, end: int) -> Span:
            return at + positions[start], at + positions[end - 1] + 1

        if self._hex.has(digits):
            yield span(0, len(digits))
            return
        for form in self._hex.forms:
            found = digits.find(form)
            while found >= 0:
                yield span(found, found + len(form))
                found = digits.find(form, found + 1)
        start, end = self._hex.at_start(digits), self._hex.at_end(digits)
        if start >= SHORTEST_HEX:
            yield span(0, start)
        if end <= len(digits) - SHORTEST_HEX:
            yield span(end, len(digits))
