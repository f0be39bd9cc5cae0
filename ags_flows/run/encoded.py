"""Parts of secrets in base64 and hex, wherever programs have wrapped, numbered, quoted or grouped them.

Any run of characters that can only come from a secret is masked, whatever is around it: a margin, a line number, a
position, a quote. So the ways in which programs separate the runs need not be known, and each line can be masked alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ags_flows.run.spellings import wrapped_base64, wrapped_hex
from ags_flows.run.views import Span, View

SHORTEST_BASE64 = 6
"""Characters of the shortest run that is masked: fewer have at most three whole bytes."""

SHORTEST_HEX = 8
"""Digits of the shortest run that is masked: four bytes."""

_PROBED = 2
"""A run is found by every third of its substrings that are this much shorter than the shortest run."""

_PADDING = re.compile(r"={0,2}")

# Bytes with separators, as in `70 61`, `70:61`, `\x70\x61`, `%70%61`, `0x70, 0x61` and `"70", "61"`.
_HEX = re.compile(r"(?:(?:\\x|\\u00|0x|%|&#x)?[0-9A-Fa-f]{2}[^0-9A-Za-z\\%]{0,5}){4,}")
_DIGIT = re.compile(r"\\x|\\u00|0x|([0-9A-Fa-f])")
# After the bytes, dumps show them as text, as in `7061 7373  pass` and `70 61 73 73  |pass|`.
_SHOWN_BYTES = re.compile(r"(?<=[ \t]{2})[^ \t\n].{0,17}(?=\Z|\\*[\"'])")
_ROW_END = re.compile(r"\n|\\+n|\Z")
_LONGEST_ROW = 100
"""Characters of a row after a byte of it."""


class Encoded:
    """Finds parts of secrets in base64 and hex.

    Args:
        values: What is secret.
    """

    def __init__(self, values: Iterable[str]) -> None:
        values = list(values)
        self._base64 = _Runs((form for value in values for form in wrapped_base64(value)), SHORTEST_BASE64)
        self._hex = _Runs((form for value in values for form in wrapped_hex(value)), SHORTEST_HEX)

    def spans(self, text: str, view: View, digits: Iterable[list[int]]) -> Iterator[Span]:
        """Yield where parts of secrets are.

        Args:
            text: The text.
            view: The same with its escapes decoded.
            digits: The positions of hex digits in the text.
        """
        for start, end in self._base64.spans(view.text):
            padding = _PADDING.match(view.text, end)
            yield view.span(start, padding.end() if padding else end)
        if self._hex:
            for positions in digits:
                yield from self._in_hex(text, positions)

    def _in_hex(self, text: str, positions: list[int]) -> Iterator[Span]:
        digits = "".join(text[position] for position in positions).lower()
        for first, after in self._hex.spans(digits):
            run = digits[first:after]
            if _counts(run) and not self._hex.is_whole(run):
                continue
            last = positions[after - 1] + 1
            yield positions[first], last
            # The digits may go on into the text.
            at = positions[first]
            for end in _ROW_END.finditer(text, at, min(len(text), last + _LONGEST_ROW)):
                if shown := _SHOWN_BYTES.search(text, at, end.start()):
                    yield shown.span()
                at = end.end()
                if at >= last:
                    break


class _Runs:
    """Finds runs of characters that are parts of known texts.

    Args:
        forms: The texts.
        shortest: Characters of the shortest run.
    """

    def __init__(self, forms: Iterable[str], shortest: int) -> None:
        self._shortest = shortest
        self._whole = {form for form in forms if len(form) >= shortest}
        self._forms = "\0".join(sorted(self._whole))
        self._probes = {probe for form in self._whole for probe in _substrings(form, shortest - _PROBED)}

    def __bool__(self) -> bool:
        return bool(self._forms)

    def is_whole(self, run: str) -> bool:
        """Return True if a run is one of the texts, and not only a part."""
        return run in self._whole

    def spans(self, text: str) -> Iterator[Span]:
        """Yield where the runs are, each as a start and an end; those that overlap become one."""
        if not self:
            return
        size, probed, probes = self._shortest, self._shortest - _PROBED, self._probes
        start = end = 0
        for hit in [at for at in range(0, len(text) - probed + 1, _PROBED + 1) if text[at : at + probed] in probes]:
            for at in range(max(0, hit - _PROBED), min(hit, len(text) - size) + 1):
                if text[at : at + size] not in self._forms:
                    continue
                if at >= end:
                    if start < end:
                        yield start, end
                    start = at
                end = at + size
        if start < end:
            yield start, end


def hex_digits(text: str) -> Iterator[list[int]]:
    """Yield the positions of digits that can be bytes in hex, for each run of them."""
    for found in _HEX.finditer(text):
        yield [digit.start(1) for digit in _DIGIT.finditer(text, *found.span()) if digit[1]]


def _counts(digits: str) -> bool:
    """Return True for numbers at equal distances, such as those of a list, which are ordinary output."""
    numbers = bytes.fromhex(digits[: len(digits) // 2 * 2])
    return len({after - before for before, after in zip(numbers, numbers[1:], strict=False)}) == 1


def _substrings(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(len(text) - size + 1))
