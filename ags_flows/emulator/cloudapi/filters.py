"""Filters: all of them must match, each by any of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ags_flows.emulator.world.refusal import Refusal

T = TypeVar("T")
Read = Callable[[T], Iterable[str]]


def matching(items: Iterable[T], filters: list[dict[str, Any]] | None, known: Mapping[str, Read[T]]) -> list[T]:
    """Return the items that match.

    Args:
        items: What to choose from.
        filters: ``[{Name, Values}]``, names as AGS writes them.
        known: How to read what a filter compares, by the filter's name.

    Raises:
        Refusal: ``InvalidParameter.Filters`` for an unknown name, no values or too many.
    """
    filters = filters or []
    if len(filters) > 10:
        raise Refusal("InvalidParameter.Filters", f"At most 10 Filters, not {len(filters)}.")
    wanted: list[tuple[Read[T], set[str]]] = []
    for each in filters:
        name, values = each.get("Name"), each.get("Values")
        read = known.get(name) if name is not None else None
        if read is None:
            names = ", ".join(sorted(known))
            raise Refusal(
                "InvalidParameter.Filters", f"Filter {str(name)[:60]!r} is not supported; supported: {names}."
            )
        if not values:
            raise Refusal("InvalidParameter.Filters", f"Filter {name!r} has no Values.")
        if len(values) > 100:
            raise Refusal("InvalidParameter.Filters", f"Filter {name!r} has more than 100 Values.")
        wanted.append((read, set(values)))
    return [item for item in items if all(not values.isdisjoint(read(item)) for read, values in wanted)]


def chosen(items: Iterable[T], ids: list[str] | None, name: Callable[[T], str], code: str) -> list[T]:
    """Return the items with these ids, or all when no ids are given.

    Raises:
        Refusal: with ``code`` when there are more than 100 ids.
    """
    if not ids:
        return list(items)
    if len(ids) > 100:
        raise Refusal(code, f"At most 100 ids, not {len(ids)}.")
    wanted = set(ids)
    return [item for item in items if name(item) in wanted]
