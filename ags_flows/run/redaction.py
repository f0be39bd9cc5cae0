"""Masking of secrets in text, in bytes and in streams."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "********"
SHORTEST = 4
"""Shorter values are not masked: they stand in too many innocent places."""

PATTERNS = (
    r"\bsit_[A-Za-z0-9_\-.=]{8,}",
    r"\bark_[A-Za-z0-9_\-.=]{8,}",
    r"\be2b_[0-9a-f]{16,}",
    r"\bAKID[A-Za-z0-9]{13,}",
)
"""Tokens of AGS, keys of AGS and E2B, SecretIds of Tencent Cloud: masked wherever they appear."""


class Redactor:
    """Replaces secrets by a mask, also where they are URL-encoded, in base64, or cut into lines.

    Args:
        secrets: The values. Each line of a value of several lines is a secret too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare one pattern for all of them, the longest first."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
        self._longest = max(map(len, forms), default=0)
        ordered = sorted(forms, key=len, reverse=True)
        alternatives = [re.escape(form) for form in ordered]
        self._pattern = re.compile("|".join([*alternatives, *PATTERNS]))

    def text(self, text: str) -> str:
        """Return text with every secret masked."""
        return self._pattern.sub(MASK, text)

    def data(self, value: Any) -> Any:
        """Return a JSON-like value with every secret in its texts masked; names of mappings stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.data(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(one) for one in value]
        return value

    def stream(self) -> StreamRedactor:
        """Return a redactor for one stream of pieces."""
        return StreamRedactor(self, self._longest)


class StreamRedactor:
    """Masks secrets in a stream, also those cut across pieces: it holds back what could be the start of one."""

    def __init__(self, redactor: Redactor, longest: int) -> None:
        """Start empty."""
        self._redactor = redactor
        self._hold = max(longest, LONGEST_TOKEN) - 1
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take a piece and return what can be shown of it and of earlier ones."""
        text = self._redactor.text(self._held + piece)
        cut = max(0, len(text) - self._hold)
        self._held = text[cut:]
        return text[:cut]

    def close(self) -> str:
        """Return the rest."""
        rest, self._held = self._redactor.text(self._held), ""
        return rest


LONGEST_TOKEN = 512
"""How much of a stream is held back for tokens whose length is not known."""


def _forms(secret: str) -> Iterable[str]:
    for value in {secret, *secret.splitlines()}:
        stripped = value.strip()
        if not stripped:
            continue
        yield stripped
        yield quote(stripped, safe="")
        yield quote_plus(stripped)
        encoded = base64.b64encode(stripped.encode()).decode()
        yield encoded
        yield encoded.rstrip("=")
        yield base64.urlsafe_b64encode(stripped.encode()).decode()
