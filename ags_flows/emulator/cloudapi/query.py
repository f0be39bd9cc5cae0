"""Requests that come in the query string: ``Filters.0.Name=Status&Filters.0.Values.0=RUNNING``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from ags_flows.emulator.cloudapi import schema
from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]


def parsed(action: str, query: str) -> Json:
    """Return the request that a query string holds; `schema.checked` finds what is wrong in it.

    Raises:
        Refusal: ``InvalidParameter`` when the names contradict each other.
    """
    tree: Json = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=5000)
    except ValueError as error:
        raise Refusal("InvalidParameter", f"The query string is not valid: {error}") from error
    for name, value in pairs:
        *parents, last = name.split(".")
        node = tree
        for parent in parents[:12]:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise Refusal("InvalidParameter", f"The parameter `{name[:200]}` is both a value and an object.")
        node[last] = value
    return {name: _shaped(schema.kind_of(action, name), value) for name, value in tree.items()}


def _shaped(kind: schema.Kind | None, value: Any) -> Any:
    """Return a value of strings in the shape of its type; unchanged if it does not fit."""
    if kind is None:
        return value
    if kind.many and isinstance(value, dict) and all(key.isdecimal() for key in value):
        items = sorted(value.items(), key=lambda item: int(item[0][:9]))
        return [_shaped(kind.one(), item) for _, item in items]
    if kind.model is not None and isinstance(value, dict):
        return {name: _shaped(schema.field_kind(kind.model, name), item) for name, item in value.items()}
    if kind.many or not isinstance(value, str):
        return value
    if kind.scalar == "bool":
        return {"true": True, "false": False}.get(value.lower(), value)
    if kind.scalar in ("int", "float"):
        try:
            return int(value[:30]) if kind.scalar == "int" else float(value)
        except ValueError:
            return value
    return value
