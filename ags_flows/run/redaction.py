"""Masking of secrets in text, in results, in errors and in streams.

Text is masked where it leaves the process: in the log line that is written, in the result that is returned, in the
error that is raised. Text that was cut before is masked with its cuts: a part of a secret at a cut is masked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel

from ags_flows.cloud.head_and_tail import LEFT_OUT
from ags_flows.run.encoded import Encoded, hex_digits
from ags_flows.run.parts import Parts
from ags_flows.run.plain import Plain, cover
from ags_flows.run.spellings import SHORTEST, encodings, values
from ags_flows.run.views import SOFT_BREAK, Span, decoded

MASK = "********"

_STARTS_WORD = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
"""Before a token: no part of a word, but perhaps an escape of JSON or of a URL, which ends with a letter."""

PATTERNS = (
    r"sit_[A-Za-z0-9_\-.=]{8,}",
    r"ark_[A-Za-z0-9_\-.=]{8,}",
    r"e2b_[0-9a-f]{16,}",
    r"AKID[A-Za-z0-9]{13,}",
)
"""Tokens of AGS, keys of AGS and E2B, SecretIds of Tencent Cloud: masked wherever they appear."""

LONGEST_TOKEN = 4096
"""Characters of a stream that are held back for a token whose end has not arrived."""

MOST_SEARCHED = 1000
"""Number of spellings up to which a search for each of them is faster than one pass over the text."""

_TOKEN_STARTS = ("sit_", "ark_", "e2b_", "AKID")
_TOKEN = re.compile(f"{_STARTS_WORD}(?:{'|'.join(PATTERNS)})")
_PATTERN = re.compile("|".join(PATTERNS))
_TOKEN_REST = re.compile(r"[A-Za-z0-9_\-.=]*")
_OPEN_TOKEN = re.compile(_STARTS_WORD + r"(?:(?:sit_|ark_|e2b_|AKID)[A-Za-z0-9_\-.=]*|sit?|s|ark?|a|e2b?|e|AKI?|A)\Z")
_LONGEST_OPEN_TOKEN = 32
_CONTEXT = 6
"""Characters before a token that decide whether it is one."""

T = TypeVar("T")


class Redactor:
    """Replaces secrets by a mask, in every spelling in which programs print them.

    Args:
        secrets: The values. The lines of a value, and the strings of a JSON text, are secrets too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        masked = values(secrets)
        self._plain = Plain(masked)
        self._encoded = Encoded(masked)
        encoded = {form for value in masked for form in encodings(value) if len(form) >= SHORTEST}
        self._forms = sorted(masked | encoded)
        self._cut = Parts(self._forms)
        self._short_starts = frozenset(form[:length] for form in self._forms for length in range(1, SHORTEST))

    def text(self, text: str, *, begins_cut: bool = False, ends_cut: bool = False) -> str:
        """Return text with every secret masked.

        Output that is cut in the middle (`HeadAndTail`) is recognized, and parts of secrets at the cut are masked.

        Args:
            text: The text.
            begins_cut: Whether the text was cut at its beginning: a part of a secret there is masked.
            ends_cut: Whether the text was cut at its end.
        """
        if " bytes left out " not in text:
            return self._part(text, begins_cut, ends_cut)
        parts = LEFT_OUT.split(text)
        marks = [*LEFT_OUT.findall(text), ""]
        last = len(parts) - 1
        return "".join(
            self._part(part, number > 0 or begins_cut, number < last or ends_cut) + mark
            for number, (part, mark) in enumerate(zip(parts, marks, strict=True))
        )

    def data(self, value: T) -> T:
        """Return a value with every secret in its texts masked: models, mappings with their keys, lists, tuples."""
        masked: Any = value
        if isinstance(value, str):
            masked = self.text(value)
        elif isinstance(value, BaseModel):
            fields = {name: self.data(getattr(value, name)) for name in type(value).model_fields}
            masked = value.model_copy(update=fields)
        elif isinstance(value, Mapping):
            masked = {self.data(key): self.data(one) for key, one in value.items()}
        elif isinstance(value, (list, tuple)):
            masked = type(value)([self.data(one) for one in value]) if type(value) in (list, tuple) else value
        return masked  # type: ignore[no-any-return]

    def error(self, error: BaseException) -> None:
        """Mask the message, the arguments and the attributes of an error, and of the errors that caused it."""
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while waiting:
            one = waiting.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            one.args = self.data(one.args)
            masked = {name: self.data(value) for name, value in vars(one).items()}
            one.__dict__.update({name: value for name, value in masked.items() if value != vars(one)[name]})
            waiting += [one.__cause__, one.__context__]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Mask the errors that are raised in a block."""
        try:
            yield
        except Exception as error:
            self.error(error)
            raise

    def stream(self) -> StreamRedactor:
        """Return a redactor for one stream of pieces."""
        return StreamRedactor(self)

    def spans(self, text: str, before: str = "") -> list[Span]:
        """Return where secrets are, in order; spans that overlap are joined.

        Args:
            text: The text.
            before: What comes before it.
        """
        found: list[Span] = []
        if self._forms:
            view = decoded(text)
            found += [known.span(*span) for known in view.sources() for span in self._occurrences(known.text)]
            found += self._plain.spans(view)
            digits = list(hex_digits(text))
            found += self._encoded.spans(text, view, digits)
            found += [span for positions in digits for span in self._in_hex(text, positions)]
        if any(start in text for start in _TOKEN_STARTS):
            skip = len(before)
            tokens = _TOKEN.finditer(before + text, skip)
            found += [(token.start() - skip, token.end() - skip) for token in tokens]
        return _joined(found)

    def open_at(self, text: str, before: str = "") -> int:
        """Return where the end of a text begins that can be the start of a secret; the length if there is none.

        Args:
            text: The text.
            before: What comes before it.
        """
        at = min(self._cut.at_end(text), self._plain.open_at(text))
        for length in range(min(SHORTEST - 1, len(text)), 0, -1):
            if text[-length:] in self._short_starts:
                at = min(at, len(text) - length)
        token = _open_token(text, before)
        return min(at, token[0]) if token else at

    def _part(self, text: str, begins_cut: bool, ends_cut: bool) -> str:
        spans = self.spans(text)
        inner = text.removesuffix(SOFT_BREAK)
        ends_cut = ends_cut or inner != text
        if begins_cut:
            whole = ends_cut and (self._cut.has(inner) or self._plain.has(inner))
            spans.append((0, len(inner) if whole else max(self._cut.at_start(inner), self._plain.open_until(inner))))
        if ends_cut:
            token = _open_token(text)
            if token and token[1] - token[0] >= SHORTEST:
                spans.append(token)
            at = min(self._cut.at_end(inner), self._plain.open_at(inner, SHORTEST))
            if at < len(inner):
                spans.append((at, len(text)))
        if not spans:
            return text
        shown, at = [], 0
        for start_at, end in _joined(spans):
            shown += [text[at:start_at], MASK]
            at = end
        return "".join([*shown, text[at:]])

    def _in_hex(self, text: str, positions: list[int]) -> Iterator[Span]:
        digits = "".join(text[position] for position in positions)
        for skip in range(2):
            data = bytes.fromhex(digits[skip : skip + (len(digits) - skip) // 2 * 2])
            for start, end in self._plain.in_bytes(data):
                yield positions[skip + 2 * start], positions[skip + 2 * end - 1] + 1

    def _occurrences(self, text: str) -> list[Span]:
        if len(self._forms) <= MOST_SEARCHED:
            return [span for form in self._forms if form in text for span in cover(form, text)]
        return [
            (at, at + len(form))
            for at in range(len(text) - SHORTEST + 1)
            for form in self._cut.starts.get(text[at : at + SHORTEST], ())
            if text.startswith(form, at)
        ]


class StreamRedactor:
    """Masks secrets in a stream of pieces. It holds back only text that can be the start of a secret.

    Args:
        redactor: Knows the secrets.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._masked = 0
        """Characters at the start of the held text that are a part of a secret whose mask was returned already."""
        self._in_token = False
        self._before = ""

    def feed(self, piece: str) -> str:
        """Take a piece, and return what can be shown of it and of earlier ones."""
        return self._advance(self._held + piece, final=False)

    def close(self) -> str:
        """Return the rest."""
        return self._advance(self._held, final=True)

    def _advance(self, text: str, final: bool) -> str:
        masked = self._masked
        if self._in_token and text:
            match = _TOKEN_REST.match(text)
            rest = match.end() if match else 0
            masked = max(masked, rest)
            self._in_token = rest == len(text)
        spans = _joined([*self._redactor.spans(text, self._before), (0, masked)])
        hold = len(text) if final else self._redactor.open_at(text, self._before)
        if not final and spans and spans[-1][1] == len(text):
            hold = self._hold_for_token(text, spans[-1][0], hold)
        shown, at = [], masked
        for number, (start, end) in enumerate(spans):
            if start >= hold:
                break
            shown.append(text[at:start])
            if number or not masked:
                shown.append(MASK)
            at = end
        shown.append(text[at:hold])
        self._masked = max(0, at - hold)
        self._before = (self._before + text[max(0, hold - _CONTEXT) : hold])[-_CONTEXT:]
        self._held = text[hold:]
        return "".join(shown)

    def _hold_for_token(self, text: str, start: int, hold: int) -> int:
        """Return what is held back where the text ends in a secret that can be a token without its end."""
        token = _PATTERN.match(text, start)
        if token is None or token.end() != len(text):
            return hold
        if len(text) - start <= LONGEST_TOKEN:
            return min(hold, start)
        self._in_token = True
        return hold


def _open_token(text: str, before: str = "") -> Span | None:
    """Return the span at the end of a text that can be the start of a token."""
    known = before + text[-_LONGEST_OPEN_TOKEN - _CONTEXT :]
    skip = len(before) if len(text) <= _LONGEST_OPEN_TOKEN else len(known) - _LONGEST_OPEN_TOKEN
    token = _OPEN_TOKEN.search(known, skip)
    return (token.start() + len(text) - len(known), len(text)) if token else None


def _joined(spans: list[Span]) -> list[Span]:
    """Return spans in order, without empty ones; those that overlap become one."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
