"""What the HTTP APIs of the emulator share: paths, limited bodies, JSON responses, clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

MOST_BYTES = 10 * 1024 * 1024
"""The most that the Cloud API takes of a request signed with TC3, and more than any other API needs."""


class JsonResponse(Response):
    """A JSON value. Its type has no parameters: the SDK looks for errors only in what is exactly application/json."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


class Answer(NamedTuple):
    """A response of a control plane, with its outcome and a detail for the request log."""

    response: Response
    outcome: str
    detail: str


def raw_path(scope: Scope) -> str:
    """Return the path of a request, undecoded."""
    raw = scope.get("raw_path")
    path: str = raw.decode("latin-1") if raw else scope["path"]
    return path.partition("?")[0]


def raw_query(scope: Scope) -> str:
    """Return the query string of a request, undecoded."""
    return str(scope.get("query_string", b"").decode("latin-1"))


async def read(request: Request, most: int = MOST_BYTES) -> bytes:
    """Return the body, or the first ``most + 1`` bytes of one that is longer.

    Raises:
        ClientDisconnect: The client has gone away.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            break
    return bytes(body[: most + 1])


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


async def first(*waits: Coroutine[Any, Any, None]) -> None:
    """Return when one of them has ended; cancel the others."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
