"""Closing a client's connection at once, without a proper end: ASGI has no way to say so."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
_EXTENSION = "ags.abort"


def abort(send: Any) -> None:
    """Close the connection of a request.

    uvicorn gives its outermost application a bound method of the object that holds the transport; where that is not
    so, the end of the application without an answer makes an error of the request.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()


def lend(scope: Scope, send: Any) -> None:
    """Let inner applications cut the connection; only the outermost one sees it."""
    scope.setdefault("extensions", {})[_EXTENSION] = {"abort": lambda: abort(send)}


def cut(scope: Scope) -> None:
    """Close the connection of a request, where it was lent."""
    scope.get("extensions", {}).get(_EXTENSION, {}).get("abort", lambda: None)()
