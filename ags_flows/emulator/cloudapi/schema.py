"""What each action takes, read from the SDK's own request models.

The SDK declares the type of every field in the docstrings of its models; nothing else does. So these are read, once
for each model, on its first use: a newer SDK brings its new fields along. Where docstrings are missing (``python
-OO``) requests are taken unchecked.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]

_DEPTH = 12
"""How deep a request may be nested; the deepest model has 6 levels."""

_TYPE = re.compile(r":type (\w+):\s*(.+)")
_MODEL = re.compile(r":class:`(?:[\w.]*\.)?(\w+)`|(\w+)")

_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string"),
    "int": ((int,), "an integer"),
    "bool": ((bool,), "true or false"),
    "float": ((int, float), "a number"),
    "dict": ((dict,), "an object"),
}


@dataclass(frozen=True)
class Kind:
    """The type of a field: one or ``many`` of a scalar or a model."""

    scalar: str | None
    model: str | None
    many: bool

    def one(self) -> Kind:
        """Return the type of an item."""
        return replace(self, many=False)


def actions() -> frozenset[str]:
    """Return the names of all actions that the SDK knows."""
    return frozenset(name[: -len("Request")] for name in vars(_models()) if name.endswith("Request"))


def kind_of(action: str, field: str) -> Kind | None:
    """Return the type of an action's field, or None when there is no such field."""
    return field_kind(f"{action}Request", field)


def field_kind(model: str, field: str) -> Kind | None:
    """Return the type of a model's field, or None when there is no such field."""
    return fields_of(model).get(field)


def checked(action: str, request: Any) -> Json:
    """Return a request whose fields all have their types; null is the same as absent.

    Raises:
        Refusal: ``UnknownParameter`` or ``InvalidParameter``.
    """
    return checked_model(f"{action}Request", request)


def checked_model(model: str, value: Any) -> Json:
    """Return an object of one of the SDK's models whose fields all have their types.

    Raises:
        Refusal: ``UnknownParameter`` or ``InvalidParameter``.
    """
    if not isinstance(value, dict):
        raise Refusal("InvalidParameter", "The request body must be a JSON object.")
    return _object(model, value, "", 0)


@functools.cache
def fields_of(model: str) -> dict[str, Kind]:
    """Return the types of a model's fields."""
    declared = _TYPE.findall(getattr(_models(), model).__init__.__doc__ or "")
    return {name: _kind(text.strip()) for name, text in declared}


def _kind(text: str) -> Kind:
    many = text.startswith("list of ")
    match = _MODEL.fullmatch(text.removeprefix("list of ").strip())
    name = (match[1] or match[2]) if match else ""
    if name in _SCALARS:
        return Kind(name, None, many)
    return Kind(None, name if hasattr(_models(), name) else None, many)


@functools.lru_cache(maxsize=1)
def _models() -> Any:
    from tencentcloud.ags.v20250920 import models

    return models


def _object(model: str, value: Json, where: str, depth: int) -> Json:
    fields = fields_of(model)
    if not fields and not fields_of("Filter"):
        return value
    result: Json = {}
    for name, item in value.items():
        path = f"{where}.{name}" if where else name
        if name not in fields:
            raise Refusal("UnknownParameter", f"The parameter `{path[:200]}` is not recognized.")
        if item is not None:
            result[name] = _value(fields[name], item, path, depth + 1)
    return result


def _value(kind: Kind, value: Any, path: str, depth: int) -> Any:
    if depth > _DEPTH:
        raise Refusal("InvalidParameter", f"The parameter `{path[:200]}` is nested too deeply.")
    if kind.many:
        if not isinstance(value, list):
            raise _wrong(path, "a list")
        for index, item in enumerate(value):
            if item is None:
                raise _wrong(f"{path}.{index}", "present")
        return [_value(kind.one(), item, f"{path}.{index}", depth + 1) for index, item in enumerate(value)]
    if kind.model is not None:
        if not isinstance(value, dict):
            raise _wrong(path, "an object")
        return _object(kind.model, value, path, depth)
    if kind.scalar is None:
        return value
    types, expected = _SCALARS[kind.scalar]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _wrong(path, expected)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refusal("InvalidParameter", f"The parameter `{path[:200]}` is not valid Unicode.") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _wrong(path, "an integer of 64 bits")
    return value


def _wrong(path: str, expected: str) -> Refusal:
    return Refusal(
        "InvalidParameter", f"The value type of parameter `{path[:200]}` is not valid: it must be {expected}."
    )
