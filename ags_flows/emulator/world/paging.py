"""Both kinds of paging: by offset, and by tokens that stay right while things come and go."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ags_flows.emulator.world.refusal import Refusal

T = TypeVar("T")
_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page: the items, how many there are in all (0 when not counted), and the next page's token or ``""``."""

    items: list[T]
    total: int
    next_token: str = ""


def by_offset(items: Sequence[T], offset: int | None, limit: int | None) -> Page[T]:
    """Return ``limit`` (1 to 100, default 20) items from ``offset`` (0 to 10,000, default 0).

    Raises:
        Refusal: when one of them is out of range.
    """
    offset = 0 if offset is None else offset
    limit = 20 if limit is None else limit
    if offset < 0:
        raise Refusal("InvalidParameter.Offset", f"Offset must be at least 0, not {offset}.")
    if offset > 10_000:
        raise Refusal("InvalidParameterValue.OffsetTooLarge", "Offset must be at most 10000")
    if not 1 <= limit <= 100:
        raise Refusal("InvalidParameter.Limit", f"Limit must be 1 to 100, not {limit}.")
    return Page(list(items[offset : offset + limit]), len(items))


def by_token(
    items: Sequence[T],
    *,
    order: Callable[[T], int],
    query: object,
    now: float,
    size: int | None,
    token: str | None,
    count: bool,
) -> Page[T]:
    """Return a page of items that are sorted by a number which falls.

    The token holds that number of the last item shown, so that items which come or go in between shift nothing.

    Args:
        items: All items, sorted.
        order: The number of an item.
        query: All other parameters (JSON values): a token is good for the same query only.
        now: The time, for the token's 24 hours.
        size: Items on a page, 1 to 100, default 20.
        token: The previous page's token; empty for the first page.
        count: Whether the first page counts them all; the figure stays the same on all pages.

    Raises:
        Refusal: ``InvalidParameter`` for a bad size or token.
    """
    size = 20 if size is None else size
    if not 1 <= size <= 100:
        raise Refusal("InvalidParameter", f"MaxResults must be 1 to 100, not {size}.")
    print_of_query = hashlib.sha256(json.dumps([query, size, count], sort_keys=True).encode()).hexdigest()[:16]
    total = len(items) if count else 0
    if token:
        last, total, issued = _open(token, print_of_query)
        if now - issued > _DAY:
            raise Refusal("InvalidParameter", "NextToken has expired; start again without it.")
        items = [item for item in items if order(item) < last]
    page = list(items[:size])
    more = len(items) > size
    following = _seal([order(page[-1]), total, now, print_of_query]) if more else ""
    return Page(page, total, following)


def _seal(content: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _open(token: str, print_of_query: str) -> tuple[int, int, float]:
    try:
        last, total, issued, print_of_token = json.loads(base64.urlsafe_b64decode(token.encode()))
        opened = int(last), int(total), float(issued)
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refusal("InvalidParameter", "NextToken is not one of this service.") from error
    if print_of_token != print_of_query:
        raise Refusal("InvalidParameter", "NextToken was issued for other parameters; keep them unchanged.")
    return opened
