"""What each action takes, read from the SDK's own request models.

The SDK declares the type of every field in the docstrings of its models; nothing else does. So these are read, once
for each model, on its first use: a newer SDK brings its new fields along. Where docstrings are missing (``python
-OO``) requests are taken unchecked.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from ..world.refusal import Refusal

Json = dict[str, Any]

#: How deep a request may be nested; the deepest model has 6 levels.
_DEPTH = 12

_TYPE = re.compile(r":type (\w+):\s*(.+)")
_MODEL = re.compile(r":class:`tencentcloud\.ags\.v20250920\.models\.(\w+)`")
_LIST_OF_MODELS = re.compile(r"list of (?::class:`[\w.]*\.)?(\w+)`?")

_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "dict": (dict,),
}


def actions() -> frozenset[str]:
    """Return the names of all actions that the SDK knows."""
    return frozenset(name[: -len("Request")] for name in vars(_models()) if name.endswith("Request"))


def checked(action: str, request: Any) -> Json:
    """Return a request whose fields all have their types; null is the same as absent.

    Raises:
        Refusal: ``UnknownParameter`` or ``InvalidParameter``.
    """
    if not isinstance(request, dict):
        raise Refusal("InvalidParameter", "The request body must be a JSON object.")
    return _object(f"{action}Request", request, "", 0)


def checked_model(model: str, value: Any) -> Json:
    """Return an object of one of the SDK's models whose fields all have their types.

    Raises:
        Refusal: ``UnknownParameter`` or ``InvalidParameter``.
    """
    if not isinstance(value, dict):
        raise Refusal("InvalidParameter", f"{model} must be a JSON object.")
    return _object(model, value, "", 0)


@functools.lru_cache(maxsize=1)
def _models() -> Any:
    from tencentcloud.ags.v20250920 import models

    return models


@functools.cache
def _fields(model: str) -> dict[str, str]:
    kind = getattr(_models(), model)
    declared = dict(_TYPE.findall(kind.__init__.__doc__ or ""))
    return {name: text.strip() for name, text in declared.items()}


def _object(model: str, value: Json, where: str, depth: int) -> Json:
    fields = _fields(model)
    if not fields and not _fields("Filter"):
        return value
    result: Json = {}
    for name, item in value.items():
        path = f"{where}.{name}" if where else name
        if name not in fields:
            raise Refusal("UnknownParameter", f"The parameter `{path[:200]}` is not recognized.")
        if item is not None:
            result[name] = _value(fields[name], item, path, depth + 1)
    return result


def _value(kind: str, value: Any, path: str, depth: int) -> Any:
    if depth > _DEPTH:
        raise Refusal("InvalidParameter", f"The parameter `{path[:200]}` is nested too deeply.")
    model = _MODEL.fullmatch(kind)
    if model is not None:
        if not isinstance(value, dict):
            raise _wrong(path, "an object")
        return _object(model[1], value, path, depth)
    many = _LIST_OF_MODELS.fullmatch(kind)
    if many is not None:
        if not isinstance(value, list):
            raise _wrong(path, "a list")
        inner = many[1] if many[1] in _SCALARS else f":class:`tencentcloud.ags.v20250920.models.{many[1]}`"
        items = []
        for index, item in enumerate(value):
            if item is None:
                raise _wrong(f"{path}.{index}", "present")
            items.append(_value(inner, item, f"{path}.{index}", depth + 1))
        return items
    types = _SCALARS.get(kind)
    if types is None:
        return value
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _wrong(path, {"str": "a string", "int": "an integer", "bool": "true or false"}.get(kind, f"a {kind}"))
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
