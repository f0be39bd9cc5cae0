"""Closing a client's connection immediately, without a proper end. ASGI itself has no way to do this."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

from starlette.types import Message, Scope, Send

_EXTENSION = "ags.abort"
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose end is a TCP reset."""


def abort(send: Any, reset: bool = False) -> None:
    """Close the connection of a request, if asked for by a TCP reset.

    uvicorn passes a bound method of the object that holds the transport to its outermost application. Where that is
    not so, the application ends without a response, and the server makes an error of the request.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
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

    def abort_unless_finished(reset: bool) -> None:
        if not finished:
            abort(send, reset)

    scope.setdefault("extensions", {})[_EXTENSION] = {"abort": abort_unless_finished}
    return watched


def cut(scope: Scope, reset: bool = False) -> None:
    """Close the connection of a request, if it was lent."""
    scope.get("extensions", {}).get(_EXTENSION, {}).get("abort", lambda reset: None)(reset)


async def noticed() -> None:
    """Return when the event loop has reported a closed connection to the server, which it does in its next rounds.

    Without this wait, uvicorn would log that the request got no response.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)
