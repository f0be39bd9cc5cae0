"""Values in texts, whatever escapes, quotes, blanks and line ends programs have put into them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator

from ags_flows.run.parts import Parts
from ags_flows.run.spellings import SHORTEST
from ags_flows.run.views import GAP, QUOTES, Span, View, decoded, gaps, margins, squeezed, whole

SHORTEST_WRAPPED = 12
"""Characters of the shortest value in which any gap is accepted: the parts of shorter ones are ordinary words."""

DEEPEST = 2
"""Levels of base64 and hex in each other that are searched."""

MOST_QUOTES = 64
"""Quotes and backslashes at an end of a value that are masked with it."""

_OPEN_END = re.compile(r"(?:%[0-9A-Fa-f]?|&#?|=[0-9A-F]?)+\Z")

_RUN = re.compile(r"[A-Za-z0-9+/_-]{20,}")
_TEXT = re.compile(rb"[\0\t\n\r -~]{8,}")
"""What base64 or hex of a text is decoded to. Other data is searched for a value as it is, without decoding it."""

_REST = re.compile(r"(?:=[89AB][0-9A-F]|[\x80-\xbf]){1,3}|(?:[#xuU{]|amp;)?[0-9A-Fa-f]{0,8}[;}]?|[a-z]{1,8};")
"""The rest of an escape, or of a character, at the start of a text that was cut."""


class Plain:
    """Finds values in texts.

    Args:
        values: The values.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._tight: dict[str, set[str]] = {}
        self._wrapped: set[str] = set()
        self._before: dict[str, str] = {}
        self._after: dict[str, str] = {}
        self._open: set[str] = set()
        for value in values:
            view = decoded(value)
            value = squeezed(view.text)
            for tight in _without_ends(_tight(view.text)):
                form = squeezed(tight).replace("'", "")
                self._tight.setdefault(form, set()).add(tight)
                self._before[form] = self._before.get(form, "\\") + _quotes(view.text)
                self._after[form] = self._after.get(form, "") + _quotes(_OPEN_END.sub("", view.text)[::-1])
                if not value.endswith(form):
                    self._open.add(form)
            self._wrapped |= _without_ends(squeezed(View(view, margins(view.text)).text))
        self._tight = {form: tight for form, tight in self._tight.items() if len(form) >= SHORTEST}
        self._wrapped = {form for form in {*self._tight, *self._wrapped} if len(form) >= SHORTEST_WRAPPED}
        self._parts = Parts(self._tight)
        self._starts = {form[:length] for form in self._tight for length in range(1, SHORTEST)}
        self._longest = _longest(max(map(len, self._tight), default=0))

    def spans(self, view: View, depth: int = DEEPEST) -> Iterator[Span]:
        """Yield where the values are in a text, also in its base64.

        Args:
            view: The text, with its escapes decoded.
            depth: Levels of base64 in base64 that are decoded.
        """
        yield from self._found(view, self._tight)
        if "\n" in view.text or "\r" in view.text:
            yield from self._found(View(view, margins(view.text)), self._wrapped)
        if depth:
            yield from self._in_base64(view, depth - 1)

    def in_bytes(self, data: bytes, depth: int = DEEPEST) -> Iterator[Span]:
        """Yield where the values are in bytes."""
        for run in _TEXT.finditer(data):
            for start, end in self.spans(decoded(run[0].decode("latin-1")), depth):
                yield start + run.start(), end + run.start()

    def open_at(self, text: str, shortest: int = 1) -> int:
        """Return where the end of a text begins that can be the start of a value; the length if there is none.

        Args:
            text: The text.
            shortest: Characters of the shortest start.
        """
        if not self._tight:
            return len(text)
        skip = max(0, len(text) - self._longest)
        view = decoded(text[skip:])
        end = whole(view.text)
        known = View(view, gaps(view.text, end))
        at = self._parts.at_end(known.text)
        for length in range(min(SHORTEST - 1, len(known.text)), shortest - 1, -1):
            if at == len(known.text) and known.text[-length:] in self._starts:
                at -= length
        if at < len(known.text):
            return skip + known.span(at, at + 1)[0]
        return skip + view.span(end, end + 1)[0] if shortest == 1 and end < len(view.text) else len(text)

    def open_until(self, text: str) -> int:
        """Return where the start of a text ends that can be the end of a value; 0 if there is none."""
        view = decoded(text[: self._longest])
        known = View(view, gaps(view.text))
        rest = _REST.match(known.text)
        for at in range(rest.end() + 1 if rest else 1):
            if end := self._parts.at_start(known.text[at:]):
                return known.span(0, at + end)[1]
        return 0

    def has(self, text: str) -> bool:
        """Return True if a text is a part of a value."""
        return self._parts.has(squeezed(decoded(text).text))

    def _found(self, view: View, forms: Iterable[str]) -> Iterator[Span]:
        text = squeezed(view.text)
        found = [form for form in forms if form in text]
        known = View(view, gaps(view.text)) if found else view
        for form in found:
            is_short = len(form) < SHORTEST_WRAPPED
            for start, end in each(form, text) if is_short else cover(form, text):
                first, last = known.within(start, end)
                if is_short and _tight(view.text[first:last]) not in self._tight[form]:
                    continue
                first, last = self._with_ends(form, view, first, last)
                if last - first <= _longest(len(form)):
                    yield first, last

    def _with_ends(self, form: str, view: View, start: int, end: int) -> Span:
        """Return the span of a form with the quotes and blanks at the ends of its value."""
        start, end = self._with_quotes(form, view.text, start, end)
        # The text after a value has become a part of an escape at its end.
        if form in self._open:
            after = view.text[end : end + MOST_QUOTES]
            last = end + len(after) - len(after.lstrip(f"%&=# {QUOTES}"))
            escape = view.span(last, last + 1) if last < len(view.text) else (0, 0)
            end = last + 1 if escape[1] - escape[0] > 1 else end
        return self._with_quotes(form, view.first.text, *view.span(start, end))

    def _with_quotes(self, form: str, text: str, start: int, end: int) -> Span:
        before, after = text[max(0, start - MOST_QUOTES) : start], text[end : end + MOST_QUOTES]
        start -= len(before) - len(before.rstrip(self._before.get(form, "\\")))
        return start, end + len(after) - len(after.lstrip(self._after.get(form, "")))

    def _in_base64(self, view: View, depth: int) -> Iterator[Span]:
        ends = [0, *(at for found in _RUN.finditer(view.text) for at in found.span()), len(view.text)]
        if len(ends) == 2:
            return
        runs = View(view, ((start, end, "") for start, end in zip(ends[::2], ends[1::2], strict=True)))
        size = len(runs.text)
        digits = runs.text.replace("-", "+").replace("_", "/") + "AAA"
        for skip in range(4):
            data = binascii.a2b_base64(digits[skip : skip + (len(digits) - skip) // 4 * 4])
            for start, end in self.in_bytes(data, depth):
                yield runs.span(skip + start * 4 // 3, min(skip - (-end * 4 // 3), size))


def each(form: str, text: str) -> Iterator[Span]:
    """Yield where a form is in a text."""
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def cover(form: str, text: str) -> Iterator[Span]:
    """Yield places where a form is in a text: as few as have all characters of all of them."""
    at = text.find(form)
    while at >= 0:
        end = at + len(form)
        yield at, end
        # Of those that overlap with it or begin at its end, the last one has what the others have.
        further = text.rfind(form, at + 1, end + len(form))
        at = further if further >= 0 else text.find(form, end + 1)


def _tight(text: str) -> str:
    """Return a text with each gap as one character: a blank or a quote; none for backslashes alone."""
    return GAP.sub(lambda gap: " " if gap[0].strip("\"'`\\") else "'" if gap[0].strip("\\") else "", text)


def _without_ends(form: str) -> set[str]:
    """Return a form, and what is left of it where the text around it takes a part of its ends for an escape."""
    form = form.strip(" '")
    starts = {form, re.sub(r"^[abefnrtvE]", "", form), re.sub(r"^(?:[0-9A-Fa-f]{2}|[0-3][0-7]{2})", "", form)}
    return {end for start in starts for end in (start, _OPEN_END.sub("", start).rstrip(" '"))}


def _quotes(text: str) -> str:
    """Return the quotes and blanks that a value can begin with, if it begins with one."""
    found = GAP.match(text)
    return QUOTES + found[0] if found else ""


def _longest(size: int) -> int:
    """Return how many characters a value may have in a text: a character, of up to four bytes, and a few long gaps."""
    return 40 * size + 1000
