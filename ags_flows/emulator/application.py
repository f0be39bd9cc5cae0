"""All of the emulator behind one port: routes each request and sends its response.

A request for a sandbox goes to the gateway; ``/_emulator`` to the controls; a Cloud API request (it has an action)
to the Cloud API; ``GET /`` of a browser to the status page; all else to E2B's API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from .cloudapi.api import MOST_BYTES as MOST_OF_CLOUD
from .cloudapi.api import CloudApi
from .connection import abort, lend
from .controls import Controls
from .e2b.api import E2bApi
from .e2b.reply import Reply
from .gateway import Gateway
from .gateway.routing import Route
from .journal import Journal
from .signed_urls import PATH as SIGNED_PATH
from .status.page import page
from .world.faults import Fault
from .world.refusal import Refusal
from .world.world import World

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_BYTES = MOST_OF_CLOUD + 1
NAMING = "by the header E2b-Sandbox-Id or the host {port}-{sandbox}.localhost"


class _Gone(Exception):
    """The client has gone away."""


class Application:
    """The ASGI application.

    Args:
        world: The world.
        gateway: Reaches ports of sandboxes.
        controls: The controls.
        journal: The request log.
        domain: Below which browsers reach ports of sandboxes.
    """

    def __init__(
        self, world: World, gateway: Gateway, controls: Controls, journal: Journal, domain: str | None = None
    ) -> None:
        self._world = world
        self._gateway = gateway
        self._controls = controls
        self._journal = journal
        self._cloud = CloudApi(world)
        self._e2b = E2bApi(world, domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in ("http", "websocket"):
            return
        route = self._gateway.route(scope)
        if route is not None:
            await self._to_sandbox(route, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            await self._here(scope, receive, send)
        except _Gone:
            pass

    async def _to_sandbox(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        outcome, noted = "cut", False

        def note() -> None:
            nonlocal noted
            if not noted:
                noted = True
                operation = f"{scope.get('method', 'WS')} {scope['path'][:200]}"
                self._journal.note("sandbox", operation, outcome, began, f"{route.port}-{route.instance_id}"[:100])

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal outcome
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                outcome = str(message["status"])
            elif message["type"] == "websocket.accept":
                outcome = "101"
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                # Before the last bytes are sent: a client that has the response finds the request in the log.
                note()
            await lent(message)

        lent = lend(scope, send)
        try:
            await self._wake(route.instance_id)
            await self._gateway.app(scope, receive, noting)
        finally:
            note()

    async def _wake(self, instance_id: str) -> None:
        """Resume a paused sandbox that resumes on traffic."""
        instance = self._world.find_instance(instance_id)
        if instance is None or not instance.lifecycle.auto_resume:
            return
        instances = self._world.region(instance.region).instances
        await instances.settle(instance)
        if instance.status == "PAUSED":
            with contextlib.suppress(Refusal):
                instances.resume(instance, instance.timeout or 300)
        await instances.settle(instance)

    async def _here(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        method, path, headers = scope["method"], _raw_path(scope), _headers(scope)
        query = scope.get("query_string", b"").decode("latin-1")
        if path == "/_emulator" or path.startswith("/_emulator/"):
            body = await _read(receive)
            status, answer = await self._controls.answer(method, path, headers, body)
            await _send_json(send, status, answer)
            self._journal.note("control", f"{method} {path[:100]}", str(status), began)
        elif "x-tc-action" in headers or (path == "/" and method == "POST"):
            await self._cloud_request(method, path, query, headers, receive, send, began)
        elif path == "/" and method in ("GET", "HEAD"):
            content = page(self._world, self._journal, query)
            await _send(send, 200, content.encode(), "text/html; charset=utf-8", {"cache-control": "no-store"})
        elif path == SIGNED_PATH:
            await _read(receive)
            message = f"no sandbox has signed this URL; without a signature, name a sandbox {NAMING}"
            await _send_json(send, 401, {"code": 401, "message": message})
            self._journal.note("sandbox", f"{method} {path}", "401", began)
        elif path == "/health" and method in ("GET", "HEAD"):
            await _send_json(send, 200, {"status": "ok"})
        else:
            await self._e2b_request(method, path, query, headers, receive, send, began)

    async def _cloud_request(
        self, method: str, path: str, query: str, headers: dict[str, str], receive: Receive, send: Send, began: float
    ) -> None:
        body = await _read(receive)
        action = headers.get("x-tc-action", "")
        faults = self._world.faults.strike(action)
        if await self._before(faults, receive, send):
            self._journal.note("cloud", action, _named(faults), began)
            return
        refused = next((fault for fault in faults if fault.kind == "error"), None)
        if refused is not None:
            error = {"Code": refused.code, "Message": refused.message}
            answer: dict[str, Any] = {"Response": {"Error": error, "RequestId": f"fault-{refused.fault_id}"}}
        else:
            await asyncio.sleep(self._world.profile.delay)
            answer = await self._cloud.answer(method, path, query, headers, body)
        response = answer["Response"]
        outcome = response["Error"]["Code"] if "Error" in response else "ok"
        if await self._after(faults, send):
            self._journal.note("cloud", action, f"{outcome}, {_named(faults)}", began, response["RequestId"])
            return
        await _send_json(send, 200, answer)
        self._journal.note("cloud", action or f"{method} /", outcome, began, response["RequestId"])

    async def _e2b_request(
        self, method: str, path: str, query: str, headers: dict[str, str], receive: Receive, send: Send, began: float
    ) -> None:
        body = await _read(receive)
        operation = E2bApi.operation(method, path) or f"{method} {path[:100]}"
        faults = self._world.faults.strike(operation)
        if await self._before(faults, receive, send):
            self._journal.note("e2b", operation, _named(faults), began)
            return
        refused = next((fault for fault in faults if fault.kind == "error"), None)
        if refused is not None:
            status = 429 if "LimitExceeded" in refused.code else 500
            reply = Reply(status, {"code": status, "message": refused.message})
        else:
            await asyncio.sleep(self._world.profile.delay)
            reply = await self._e2b.answer(method, path, query, headers, body)
        if await self._after(faults, send):
            self._journal.note("e2b", operation, f"{reply.status}, {_named(faults)}", began)
            return
        if reply.body is None:
            await _send(send, reply.status, b"", None, dict(reply.headers))
        else:
            await _send_json(send, reply.status, reply.body, dict(reply.headers))
        self._journal.note("e2b", operation, str(reply.status), began, path[:100])

    async def _before(self, faults: list[Fault], receive: Receive, send: Send) -> bool:
        """Apply what happens before a request is carried out; return True if the request is finished."""
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "cut":
                await _cut(send)
                return True
            elif fault.kind == "hang":
                await _first(self._world.faults.cleared(), _disconnected(receive))
                await _cut(send)
                return True
            elif fault.kind == "status":
                headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
                await _send(send, fault.status, fault.message.encode(), "text/plain; charset=utf-8", headers)
                return True
        return False

    async def _after(self, faults: list[Fault], send: Send) -> bool:
        """Apply what happens to a response; return True if it is lost."""
        for fault in faults:
            if fault.kind == "late":
                await asyncio.sleep(fault.seconds)
        if any(fault.kind == "lost" for fault in faults):
            await _cut(send)
            return True
        return False


async def _first(*waits: Coroutine[Any, Any, None]) -> None:
    """Return when one of them has ended; cancel the others."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut(send: Send) -> None:
    """Close a request's connection immediately, and let the server notice."""
    abort(send)
    # The loop reports the closed connection in its next round. Without this wait, uvicorn would log that the
    # request got no response.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _named(faults: list[Fault]) -> str:
    return "+".join(fault.kind for fault in faults)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", [])}


def _raw_path(scope: Scope) -> str:
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else scope["path"]
    return str(path.split("?", 1)[0])


async def _read(receive: Receive) -> bytes:
    """Return the body. Stop reading once it is longer than the limit."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        if size < _MOST_BYTES:
            parts.append(part[: _MOST_BYTES - size])
            size += len(parts[-1])
        if not message.get("more_body", False) or size >= _MOST_BYTES:
            return b"".join(parts)


async def _send_json(send: Send, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    # Without parameters: the SDK looks for errors only in what is exactly application/json.
    await _send(send, status, content, "application/json", headers or {})


async def _send(send: Send, status: int, body: bytes, kind: str | None, headers: dict[str, str]) -> None:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    if kind is not None:
        lines += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
