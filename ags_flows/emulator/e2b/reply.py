"""The query that a route reads and the reply that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from ..world.refusal import Refusal


@dataclass(frozen=True)
class Reply:
    """A response: its HTTP status, its JSON body (None: no body), its further headers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Query:
    """The query string of one request."""

    def __init__(self, raw: str) -> None:
        """Parse it; what cannot be parsed is left out."""
        try:
            self._values = parse_qs(raw, keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            self._values = {}

    def all(self, name: str) -> list[str]:
        """Return all values of a name."""
        return self._values.get(name, [])

    def one(self, name: str) -> str | None:
        """Return the first value of a name, or None when it is absent or empty."""
        return self._values.get(name, [""])[0] or None

    def number(self, name: str, default: int) -> int:
        """Return a whole number.

        Raises:
            Refusal: ``InvalidParameter`` when it is not an integer.
        """
        text = self.one(name)
        if text is None:
            return default
        try:
            return int(text[:20])
        except ValueError:
            raise Refusal("InvalidParameter", f"{name} must be an integer, not {text[:40]!r}.") from None
