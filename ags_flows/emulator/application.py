"""All of the emulator behind one port: routes each request and sends its response.

A request for a sandbox goes to the gateway; ``/_emulator`` to the controls; a Cloud API request (it has an action)
to the Cloud API; ``GET /`` of a browser to the status page; all else to E2B's API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from ags_flows.emulator.cloudapi.api import CloudApi
from ags_flows.emulator.connection import abort, lend, noticed
from ags_flows.emulator.controls import Controls
from ags_flows.emulator.e2b.api import E2bApi
from ags_flows.emulator.gateway import Gateway
from ags_flows.emulator.gateway.routing import Route
from ags_flows.emulator.http import JsonResponse, disconnected, first, raw_path, raw_query, read
from ags_flows.emulator.journal import Journal
from ags_flows.emulator.signed_urls import PATH as SIGNED_PATH
from ags_flows.emulator.status.page import page
from ags_flows.emulator.world.faults import Fault
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.world import World

NAMING = "by the header E2b-Sandbox-Id or the host {port}-{sandbox}.localhost"


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
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            with contextlib.suppress(ClientDisconnect):
                await self._here(Request(scope, receive), send)

    async def _to_sandbox(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        outcome, noted = "cut", False

        def note() -> None:
            nonlocal noted
            if not noted:
                noted = True
                operation = f"{scope.get('method', 'WS')} {scope['path'][:200]}"
                self._journal.note("sandbox", operation, outcome, began, f"{route.port}-{route.instance_id}"[:100])

        async def noting(message: Message) -> None:
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

    async def _here(self, request: Request, send: Send) -> None:
        began = time.monotonic()
        method, path = request.method, raw_path(request.scope)
        response: Response
        plane, reads = None, method in ("GET", "HEAD")
        if path == "/_emulator" or path.startswith("/_emulator/"):
            plane, response = "control", await self._controls.answer(request)
        elif "x-tc-action" in request.headers or (path == "/" and method == "POST"):
            return await self._carry_out(self._cloud, request, send)
        elif path == "/" and reads:
            content = page(self._world, self._journal, raw_query(request.scope))
            response = HTMLResponse(content, headers={"cache-control": "no-store"})
        elif path == SIGNED_PATH:
            await read(request)
            message = f"no sandbox has signed this URL; without a signature, name a sandbox {NAMING}"
            plane, response = "sandbox", JsonResponse({"code": 401, "message": message}, 401)
        elif path == "/health" and reads:
            response = JsonResponse({"status": "ok"})
        else:
            return await self._carry_out(self._e2b, request, send)
        await response(request.scope, request.receive, send)
        if plane is not None:
            self._journal.note(plane, f"{method} {path[:100]}", str(response.status_code), began)

    async def _carry_out(self, api: CloudApi | E2bApi, request: Request, send: Send) -> None:
        """Handle a request of a control plane, with the faults that hit it."""
        began = time.monotonic()
        body = await read(request)
        operation = api.operation(request)
        faults = self._world.faults.strike(operation)
        hits = "+".join(fault.kind for fault in faults)
        if await self._before(faults, request, send):
            self._journal.note(api.plane, operation, hits, began)
            return
        refused = next((fault for fault in faults if fault.kind == "error"), None)
        if refused is not None:
            answer = api.failed(request, refused)
        else:
            await asyncio.sleep(self._world.profile.delay)
            answer = await api.answer(request, body)
        outcome = answer.outcome
        if await self._after(faults, send):
            outcome += f", {hits}"
        else:
            await answer.response(request.scope, request.receive, send)
        self._journal.note(api.plane, operation, outcome, began, answer.detail)

    async def _before(self, faults: list[Fault], request: Request, send: Send) -> bool:
        """Apply what happens before a request is carried out; return True if the request is finished."""
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.kind in ("cut", "hang"):
                if fault.kind == "hang":
                    await first(self._world.faults.cleared(), disconnected(request.receive))
                await _cut(send)
                return True
            elif fault.kind == "status":
                headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
                response = PlainTextResponse(fault.message, fault.status, headers)
                await response(request.scope, request.receive, send)
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


async def _cut(send: Send) -> None:
    """Close a request's connection immediately, and let the server notice."""
    abort(send)
    await noticed()
