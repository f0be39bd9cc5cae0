"""Lists of AGS, read to their end: by token if AGS has one, else by offset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from ags_flows.errors import ConfigurationError, InvalidRequestError, UnsupportedError

Call = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
R = TypeVar("R")

PAGE = 100
"""The most items that AGS returns in one response, and the most ids that one request may name."""

LAST_OFFSET = 10_000
"""Paging by offset ends here."""


def by_token(call: Call, action: str, parameters: Mapping[str, Any], field: str) -> Iterator[dict[str, Any]]:
    """Read all pages by NextToken, which has no last offset and is not disturbed by what comes and goes.

    Token paging came to the list of instances in 2026: if AGS does not know it yet, offsets are used.
    """
    token: str | None = None
    while True:
        more = {"NextToken": token} if token else {}
        try:
            page = call(action, {**parameters, "MaxResults": PAGE, **more})
        except InvalidRequestError as error:
            if token is None and (error.code or "").startswith("UnknownParameter"):
                older = {name: value for name, value in parameters.items() if name != "NeedTotalCount"}
                yield from by_offset(call, action, older, field)
                return
            raise
        yield from page.get(field) or []
        # A page without items can have a successor.
        token, previous = page.get("NextToken") or None, token
        if token is None or token == previous:
            return


def by_offset(
    call: Call, action: str, parameters: Mapping[str, Any], field: str, offset: int = 0
) -> Iterator[dict[str, Any]]:
    """Read all pages by Offset, from the one given on.

    Raises:
        UnsupportedError: There is more than AGS shows this way.
    """
    while offset <= LAST_OFFSET:
        items = call(action, {**parameters, "Offset": offset, "Limit": PAGE}).get(field) or []
        yield from items
        offset += len(items)
        if len(items) < PAGE:
            return
    raise UnsupportedError(
        f"{action}: AGS lists no more than the first {offset}, and there are more.",
        hint="Narrow the list down by name, type, state or tag.",
    )


def chunks(ids: Sequence[str] | None) -> Iterator[list[str]]:
    """Return the ids in parts that one request can name; without ids one part that names none."""
    if ids is None:
        yield []
        return
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), PAGE):
        yield distinct[start : start + PAGE]


def take(items: Iterator[R], limit: int | None) -> list[R]:
    """Return the first `limit` items, all for None; no page is read that is not needed.

    Raises:
        ConfigurationError: The limit is negative.
    """
    if limit is not None and limit < 0:
        raise ConfigurationError(f"limit={limit} is negative.", hint="Leave it out to get all.")
    return list(islice(items, limit))


def filtered(filters: list[dict[str, Any]], read: Callable[[list[dict[str, Any]]], list[R]]) -> list[R]:
    """Read with filters, and without them if AGS refuses one: what it may filter by has changed before."""
    try:
        return read(filters)
    except InvalidRequestError as error:
        if not filters or error.code not in ("InvalidParameter.Filters", "InvalidParameter"):
            raise
        return read([])
