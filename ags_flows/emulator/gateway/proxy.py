"""Passing a request on to a port of a sandbox, and its response back, piece by piece."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from ags_flows.emulator.http import disconnected

PIECE = 1 << 16
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_RETURNED = _HOP_BY_HOP | {b"date"}
"""Headers of a response that are not passed on. Uvicorn adds the date."""

_HANDSHAKE = frozenset({b"host", b"upgrade", b"connection", b"origin", b"user-agent", b"content-length"})


class BadAnswer(Exception):
    """The server on the port does not speak HTTP, or closed the connection before it responded."""


async def forward(
    scope: Scope, receive: Receive, send: Send, path: str, upstream: socket.socket, *, tls: bool = False
) -> None:
    """Pass one HTTP request on, by TLS where the port speaks it.

    Raises:
        BadAnswer: There was no response yet.
        ConnectionError: The response broke off in the middle.
    """
    try:
        reader, writer = await asyncio.open_connection(sock=upstream, **_encryption(tls))
    except OSError as error:
        upstream.close()
        raise BadAnswer(str(error)) from error
    connection = h11.Connection(h11.CLIENT)
    upward = asyncio.ensure_future(_send_up(scope, receive, path, connection, writer))
    downward = asyncio.ensure_future(_send_down(send, connection, reader))
    try:
        await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
        if not downward.done() and upward.result():
            # The client has gone away: so does the request.
            return
        await downward
    finally:
        for task in (upward, downward):
            task.cancel()
        await asyncio.gather(upward, downward, return_exceptions=True)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send_up(
    scope: Scope, receive: Receive, path: str, connection: h11.Connection, writer: asyncio.StreamWriter
) -> bool:
    """Send the request; then wait for the client to go away, and return True when it does."""
    query = scope.get("query_string", b"")
    target = path.encode("latin-1") + (b"?" + query if query else b"")
    request = h11.Request(method=scope["method"], target=target, headers=_request_headers(scope))
    try:
        writer.write(connection.send(request) or b"")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return True
            if message.get("body"):
                writer.write(connection.send(h11.Data(data=message["body"])) or b"")
                await writer.drain()
            if not message.get("more_body", False):
                break
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
    except (ConnectionError, h11.LocalProtocolError):
        # It responded early, or closed: the other task reads the response.
        pass
    await disconnected(receive)
    return True


async def _send_down(send: Send, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
    answered = False
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                piece = await reader.read(PIECE)
                if not piece and not answered:
                    raise BadAnswer("it closed the connection without a response")
                connection.receive_data(piece)
                continue
        except (h11.RemoteProtocolError, ConnectionError) as error:
            if answered:
                raise ConnectionError(str(error)) from error
            raise BadAnswer(str(error)) from error
        if isinstance(event, h11.Response):
            answered = True
            headers = [(name, value) for name, value in event.headers if name.lower() not in _NOT_RETURNED]
            await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
        elif isinstance(event, h11.Data):
            await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, h11.EndOfMessage):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            if not answered:
                raise BadAnswer("the connection was closed without a response")
            return


def _request_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in scope["headers"]}
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _HOP_BY_HOP]
    if b"transfer-encoding" in names:
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
    client = scope.get("client") or ("127.0.0.1", 0)
    headers += [
        (b"x-forwarded-for", str(client[0]).encode()),
        (b"x-forwarded-proto", scope.get("scheme", "http").encode()),
        (b"connection", b"close"),
    ]
    if b"host" not in names:
        headers.append((b"host", b"localhost"))
    return [(_in_full_dress(name), value) for name, value in headers]


def _encryption(tls: bool) -> dict[str, Any]:
    """Return how a connection is encrypted; a certificate that a program in a sandbox made for itself will do."""
    if not tls:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return {"ssl": context, "server_hostname": "localhost"}


def _in_full_dress(name: bytes) -> bytes:
    """Return a header's name as most programs write it; ASGI has it in lower case."""
    return b"-".join(part.capitalize() for part in name.split(b"-"))


async def forward_websocket(
    scope: Scope, receive: Receive, send: Send, path: str, upstream: socket.socket, *, tls: bool = False
) -> None:
    """Pass one WebSocket on, both ways, until one side closes it."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name.lower() not in _HANDSHAKE and not name.lower().startswith(b"sec-websocket-")
    ]
    query = scope.get("query_string", b"").decode("latin-1")
    given = dict(scope["headers"])
    host = given.get(b"host", b"localhost").decode("latin-1")
    try:
        peer = await connect(
            f"{'wss' if tls else 'ws'}://{host}{path}{'?' + query if query else ''}",
            sock=upstream,
            subprotocols=scope.get("subprotocols") or None,
            origin=given[b"origin"].decode("latin-1") if b"origin" in given else None,
            additional_headers=headers,
            user_agent_header=given.get(b"user-agent", b"").decode("latin-1") or None,
            compression=None,
            max_size=None,
            ping_interval=None,
            proxy=None,
            **_encryption(tls),
        )
    except (InvalidHandshake, OSError, EOFError, asyncio.TimeoutError) as error:
        upstream.close()
        status = error.response.status_code if isinstance(error, InvalidStatus) else 502
        await receive()
        await Response(b"", status, media_type="application/json")(scope, receive, send)
        return
    async with peer:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": peer.subprotocol})
        down = asyncio.ensure_future(_messages_down(peer, send))
        up = asyncio.ensure_future(_messages_up(peer, receive))
        try:
            await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (down, up):
                task.cancel()
            await asyncio.gather(down, up, return_exceptions=True)


async def _messages_down(peer: Any, send: Send) -> None:
    try:
        async for message in peer:
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
    except ConnectionClosed:
        pass
    code = peer.close_code or 1000
    # 1005 and 1006 mean that no code was sent; they must not be sent.
    reason = peer.close_reason or ""
    await send({"type": "websocket.close", "code": 1000 if code in (1005, 1006) else code, "reason": reason})


async def _messages_up(peer: Any, receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or 1000
            await peer.close(1000 if code in (1005, 1006) else code, message.get("reason") or "")
            return
        if message["type"] == "websocket.receive":
            text = message.get("text")
            try:
                await peer.send(text if text is not None else message.get("bytes") or b"")
            except ConnectionClosed:
                return
