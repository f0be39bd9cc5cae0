"""HTTP statuses that a gateway or a proxy may send in the place of the program that was asked."""

from __future__ import annotations

THROTTLED = 429
"""The request was refused before anything was done."""

_OF_GATEWAYS = frozenset({408, 425, 499})
"""Besides all from 500 on: time limits, and what gateways respond when one of both connections ended."""


def is_inconclusive(status: int) -> bool:
    """Return True if a status does not show whether the request was executed: a harmless one may be repeated."""
    return status >= 500 or status in _OF_GATEWAYS
