"""Texts without the escapes, quotes and line ends that programs put in, with the position of each character.

Whatever programs escape, and however often, the characters that remain are the same. So the spellings of a value need
not be listed: a value and an output are compared by what remains of them.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache

Span = tuple[int, int]
Piece = tuple[int, int, str]
"""Start and end in a text, and what is there instead."""

DEEPEST = 4
"""Kinds of escapes in each other that are decoded, such as JSON in HTML. An escape of the same kind adds none."""

SOFT_BREAK = "="
"""What quoted-printable has before a line end that is not part of the text."""

# Each alternative begins with a character, by which the next one is found fast.
_ESCAPE = re.compile(
    r"""
      %(?:25)*(?:u(?P<wide>[0-9A-Fa-f]{4}) | (?P<percent>[0-9A-Fa-f]{2}))
    | &(?:amp;)*(?:\#(?P<decimal>[0-9]{1,7}) | \#[xX](?P<entity>[0-9A-Fa-f]{1,6}) | (?P<name>[A-Za-z]\w{1,31}));
    | \\(?<!\\\\)\\*(?: u(?P<u>[0-9A-Fa-f]{4}) | U(?P<U>[0-9A-Fa-f]{8}) | x(?P<x>[0-9A-Fa-f]{2})
                       | [ux]\{(?P<braces>[0-9A-Fa-f]{1,6})\} | (?P<octal>[0-3][0-7]{2}) | (?P<letter>[abefnrtvE]))
    | =(?:(?P<soft>\r?\n) | (?P<quoted>3D|09|20) | (?P<printable>[89A-F][0-9A-F](?:(?:=\r?\n)?=[89A-F][0-9A-F])+))
    """,
    re.VERBOSE,
)
_ENTITIES = ("decimal", "entity", "name")
_AMPERSANDS = re.compile(r"&(?:amp;)+")
_LETTERS = dict(zip("abefnrtvE", "\a\b\x1b\f\n\r\t\v\x1b", strict=True))

_BYTES = 0xDC00
"""Added to a byte that is only a part of a character, until its other bytes are found: as `surrogateescape` does."""

_COMPOSED = re.compile(
    "[\udcc2-\udcdf][\udc80-\udcbf]|[\udce0-\udcef][\udc80-\udcbf]{2}|[\udcf0-\udcf4][\udc80-\udcbf]{3}"
    "|[\ud800-\udbff][\udc00-\udfff]|[\udc80-\udcff]"
)

_OPEN = re.compile(
    r"""(?:[\xc2-\xf4][\x80-\xbf]{0,2} | [\ud800-\udbff])?
    (?: %(?:25)*(?:[0-9A-Fa-f] | u[0-9A-Fa-f]{0,3})?
      | &(?:amp;)*[\#A-Za-z0-9]{0,31}
      | (?<!\\)\\+(?:[uUx]\{?[0-9A-Fa-f]{0,7} | [0-3][0-7]?)?
      | (?:=[0-9A-F]{0,2}){1,4} | =\r )?\Z""",
    re.VERBOSE,
)
_LONGEST_OPEN = 200
"""Characters at the end of a text in which the start of an escape is searched."""

GAP = re.compile(r"[\s\"'`\\+]+")
"""What programs put between the characters of a value: quotes, backslashes, blanks. A plus is a blank in a URL."""

QUOTES = "\"'`\\+"
"""The same without blanks."""

# A line end with a margin, or with the number of a line.
_LINE_END = re.compile(r"(?:\r\n?|\n)[ \t>|#]{0,16}(?:\d{1,7}[:\t |]{1,4})?")
_BEFORE_LINE_END = "\\'\",+ \t"


class View:
    """A text with some pieces replaced.

    Args:
        source: The text before.
        pieces: What is replaced, in order.

    Attributes:
        text: The text after.
        first: The first text of all.
    """

    def __init__(self, source: View | str, pieces: Iterable[Piece] = ()) -> None:
        self._source = source if isinstance(source, View) else None
        self.first: View = source.first if isinstance(source, View) else self
        before: str = source.text if isinstance(source, View) else source
        kept: list[str] = []
        self._at: list[int] = []
        self._pieces: list[tuple[int, int, int]] = []
        at = size = 0
        for start, end, new in pieces:
            kept += before[at:start], new
            size += start - at
            self._at.append(size)
            self._pieces.append((start, end, len(new)))
            size += len(new)
            at = end
        self.text: str = "".join([*kept, before[at:]]) if kept else before

    def within(self, start: int, end: int) -> Span:
        """Return where a span is in the text before."""
        return self._where(start)[0], self._where(end - 1)[1]

    def span(self, start: int, end: int) -> Span:
        """Return where a span is in the first text of all."""
        start, end = self.within(start, end)
        return self._source.span(start, end) if self._source else (start, end)

    def sources(self) -> Iterator[View]:
        """Yield this text, the one before, and so on up to the first one."""
        view: View | None = self
        while view is not None:
            yield view
            view = view._source

    def _where(self, at: int) -> Span:
        number = bisect_right(self._at, at) - 1
        if number < 0:
            return at, at + 1
        start, end, length = self._pieces[number]
        inside = at - self._at[number]
        return (start, end) if inside < length else (end + inside - length, end + inside - length + 1)


def decoded(text: str) -> View:
    """Return a text with the characters for which its escapes stand, without NUL, of which UTF-16 is full."""
    view = View(text, ((found.start(), found.end(), "") for found in re.finditer("\0+", text)) if "\0" in text else ())
    for _ in range(DEEPEST):
        pieces = list(_escapes(view.text))
        view = View(view, pieces) if pieces else view
        composed = [] if view.text.isascii() else list(_composed(view.text))
        view = View(view, composed) if composed else view
        if not pieces:
            break
    return view


def whole(text: str) -> int:
    """Return where a text ends without the start of an escape or of a character at its end."""
    end = len(text)
    # What follows the start of an escape may be escaped too, and be cut.
    for _ in range(DEEPEST):
        found = _OPEN.search(text, max(0, end - _LONGEST_OPEN), end)
        end = found.start() if found else end
    return end


def squeezed(text: str) -> str:
    """Return a text without gaps."""
    text = "".join(text.split())
    for one in QUOTES:
        text = text.replace(one, "")
    return text


def gaps(text: str, end: int | None = None) -> Iterator[Piece]:
    """Yield the gaps up to a position; after it, the rest is one."""
    end = len(text) if end is None else end
    for found in GAP.finditer(text, 0, end):
        yield *found.span(), ""
    if end < len(text):
        yield end, len(text), ""


def margins(text: str) -> Iterator[Piece]:
    """Yield the line ends with what is around them: quotes, commas, an operator, a margin, a number of a line."""
    at = 0
    for found in _LINE_END.finditer(text):
        yield at + len(text[at : found.start()].rstrip(_BEFORE_LINE_END)), found.end(), ""
        at = found.end()


def _escapes(text: str) -> Iterator[Piece]:
    for found in _ESCAPE.finditer(text):
        kind = str(found.lastgroup)
        new = _character(kind, found[kind])
        if new is not None:
            yield *found.span(), new
        elif kind in _ENTITIES and (prefix := _AMPERSANDS.match(text, found.start())):
            # The reference stands for nothing, but its ampersand was escaped.
            yield *prefix.span(), "&"


@lru_cache(4096)
def _character(kind: str, code: str) -> str | None:
    if kind == "letter":
        return _LETTERS[code]
    if kind == "soft":
        return ""
    if kind == "printable":
        return "".join(chr(_BYTES + byte) for byte in bytes.fromhex(code.replace("=", "")))
    if kind == "name":
        named = html.unescape(f"&{code};")
        return None if named.startswith(f"&{code}") else named
    number = int(code, {"decimal": 10, "octal": 8}.get(kind, 16))
    if kind in ("percent", "x", "octal") and number >= 0x80:
        return chr(_BYTES + number)
    return chr(number) if number < 0x110000 else None


def _composed(text: str) -> Iterator[Piece]:
    return ((*found.span(), _together(found[0])) for found in _COMPOSED.finditer(text))


@lru_cache(4096)
def _together(parts: str) -> str:
    try:
        if "\ud800" <= parts < "\udc00":
            return parts.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        return parts.encode("utf-8", "surrogateescape").decode()
    except ValueError:
        return "".join(chr(ord(byte) - _BYTES) for byte in parts)
