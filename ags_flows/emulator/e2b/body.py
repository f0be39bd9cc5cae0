"""A query and a JSON body whose fields are read with their types."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import QueryParams

from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]


class Query(QueryParams):
    """The query string of one request."""

    def one(self, name: str) -> str | None:
        """Return the first value of a name, or None when it is absent or empty."""
        return next(iter(self.getlist(name)), None) or None

    def number(self, name: str, default: int) -> int:
        """Return a whole number.

        Raises:
            Refusal: ``InvalidParameter`` when it is not an integer.
        """
        text = self.one(name)
        try:
            return default if text is None else int(text[:20])
        except ValueError:
            raise Refusal("InvalidParameter", f"{name} must be an integer, not {(text or '')[:40]!r}.") from None


class Body:
    """The body of one request.

    Args:
        raw: The bytes; none at all are an empty object.

    Raises:
        Refusal: ``InvalidParameter`` when it is not a JSON object.
    """

    def __init__(self, raw: bytes) -> None:
        if not raw.strip():
            self.values: Json = {}
            return
        try:
            values = json.loads(raw)
            json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Refusal("InvalidParameter", f"The body is not valid JSON: {str(error)[:200]}") from error
        if not isinstance(values, dict):
            raise Refusal("InvalidParameter", "The body must be a JSON object.")
        self.values = values

    def has(self, name: str) -> bool:
        """Return True if a field is present and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, *, needed: bool = False) -> str:
        """Return a string, or ``""`` when it is absent."""
        value = self.values.get(name)
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value):
            raise _wrong(name, "a string")
        return value

    def number(self, name: str, *, needed: bool = False) -> int | None:
        """Return an integer, or None when it is absent."""
        value = self.values.get(name)
        if value is None and not needed:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(name, "an integer")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.maybe_flag(name)
        return default if value is None else value

    def maybe_flag(self, name: str) -> bool | None:
        """Return true, false, or None when it is absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise _wrong(name, "true or false")
        return value

    def mapping(self, name: str) -> Json:
        """Return an object, empty when it is absent."""
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _wrong(name, "an object")
        return value

    def strings(self, name: str) -> dict[str, str]:
        """Return an object of strings, empty when it is absent."""
        value = self.mapping(name)
        for key, item in value.items():
            if not isinstance(item, str):
                raise _wrong(f"{name}.{key[:60]}", "a string")
        return value


def _wrong(name: str, expected: str) -> Refusal:
    return Refusal("InvalidParameter", f"{name} must be {expected}.")
