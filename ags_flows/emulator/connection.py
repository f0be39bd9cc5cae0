"""Closing a client's connection immediately, without a proper end. ASGI itself has no way to do this."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.types import Message, Scope, Send

_EXTENSION = "ags.abort"


def abort(send: Any) -> None:
    """Close the connection of a request.

    uvicorn passes a bound method of the object that holds the transport to its outermost application. Where that is
    not so, the application ends without a response, and the server makes an error of the request.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        end(transport)


def end(transport: asyncio.Transport) -> None:
    """Close a transport immediately, also one that is being closed."""
    # In Python before 3.11.3 a TLS transport that was closed twice has lost its protocol, and has nothing to abort.
    with suppress(AttributeError):
        transport.abort()


def lend(scope: Scope, send: Send) -> Send:
    """Let inner applications cut the connection; only the outermost one sees it.

    Returns:
        The function to send with. Once it has sent the last byte of the response, the connection belongs to the next
        request on it, and a cut by this one is ignored.
    """
    finished = False

    async def watched(message: Message) -> None:
        nonlocal finished
        if message["type"] == "http.response.body" and not message.get("more_body"):
            finished = True
        await send(message)

    def abort_unless_finished() -> None:
        if not finished:
            abort(send)

    scope.setdefault("extensions", {})[_EXTENSION] = {"abort": abort_unless_finished}
    return watched


def cut(scope: Scope) -> None:
    """Close the connection of a request, if it was lent."""
    scope.get("extensions", {}).get(_EXTENSION, {}).get("abort", lambda: None)()


async def noticed() -> None:
    """Return when the event loop has reported a closed connection to the server, which it does in its next rounds.

    Without this wait, uvicorn would log that the request got no response.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)
