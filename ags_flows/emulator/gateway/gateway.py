"""The gateway as an ASGI application: finds the sandbox, checks the token, passes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ags_flows.emulator.connection import cut, noticed
from ags_flows.emulator.gateway.faults import Cut, FaultySend, StreamFaults, dropped, slow_receive
from ags_flows.emulator.gateway.proxy import BadAnswer, forward, forward_websocket
from ags_flows.emulator.gateway.routing import ENVD_PORT, INTERPRETER_PORT, Route, route_of, token_of
from ags_flows.emulator.http import JsonResponse, disconnected, first
from ags_flows.emulator.signed_urls import PATH as SIGNED_PATH
from ags_flows.emulator.target import InstanceTarget
from ags_flows.emulator.world.profile import Profile

_NAMES = {ENVD_PORT: "envd", INTERPRETER_PORT: "code"}
_START_COMMAND = "/process.Process/Start"


class Gateway:
    """Reaches every port of every sandbox.

    Args:
        lookup: Finds a sandbox by id.
        profile: How sandboxes respond.
        faults: Faults of connections.
        signer: Finds the id of the sandbox that signed a request's URL.
        of_e2b: Ids of sandboxes that `lookup` does not find any more and that E2B clients made.
    """

    def __init__(
        self,
        lookup: Callable[[str], InstanceTarget | None],
        profile: Profile,
        faults: StreamFaults | None = None,
        signer: Callable[[Scope], str | None] = lambda scope: None,
        of_e2b: Container[str] = (),
    ) -> None:
        self._lookup = lookup
        self._profile = profile
        self._faults = faults or StreamFaults()
        self._signer = signer
        self._of_e2b = of_e2b
        self._status = profile.status

    def route(self, scope: Scope) -> Route | None:
        """Return where a request goes, None when it is not for a sandbox.

        Where all sandboxes have one host, a URL that the SDKs sign names no sandbox: its signature identifies it.
        """
        route = route_of(scope)
        if route is None and scope["type"] == "http" and scope["path"] == SIGNED_PATH:
            signer = self._signer(scope)
            if signer is not None:
                return Route(signer, ENVD_PORT, SIGNED_PATH, by_sdk=True)
        return route

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        route = self.route(scope)
        assert route is not None
        fault = self._faults.strike(route.instance_id, route.port, scope["path"])
        try:
            if fault is not None:
                faulty = FaultySend(fault, self._faults, send, lambda: cut(scope, fault.reset))
                if fault.kind == "delay":
                    await asyncio.sleep(fault.after_seconds or 1.0)
                elif fault.kind == "status":
                    if fault.executed:
                        await self._answer(scope, receive, dropped, route)
                    await _refuse(scope, receive, send, fault.status, "a fault on request")
                    return
                elif fault.kind in ("cut", "blackhole") and fault.after_bytes is None and fault.after_seconds is None:
                    await self._held(receive, faulty)
                    return
                elif fault.kind == "slow":
                    receive = slow_receive(fault, receive)
                send = faulty
                if fault.kind in ("cut", "blackhole") and fault.after_seconds is not None:
                    await self._within(fault.after_seconds, faulty, self._answer(scope, receive, send, route))
                    return
            await self._answer(scope, receive, send, route)
        except Cut:
            await noticed()

    async def _held(self, receive: Receive, faulty: FaultySend) -> None:
        """Strike before there is a response; a client that gives up ends it."""
        await first(faulty.strike(), disconnected(receive))
        raise Cut

    async def _within(self, seconds: float, faulty: FaultySend, answer: Awaitable[None]) -> None:
        """Strike after some seconds, also when nothing is being sent then."""
        task = asyncio.ensure_future(answer)
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                await faulty.strike()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        target = self._lookup(route.instance_id)
        if target is None or target.state != "running":
            await self._absent(scope, receive, send, route, target)
            return
        if not self._may(scope, route, target):
            status, message = self._status("unauthorized.port", 401), "unauthorized: a valid access token is needed"
            if target.by_e2b:
                status, message = 403, "forbidden: a valid traffic access token is needed"
            await _refuse(scope, receive, send, status, message, sandboxId=route.instance_id)
            return
        app = self._built_in(route, target)
        if app is not None and scope["type"] == "http":
            path = route.path
            unauthorized = self._status("unauthorized.envd", 401)
            if unauthorized != 401:
                send = _with_status(send, unauthorized)
            if route.port == ENVD_PORT and not self._profile.serves_ranges:
                scope = _without(scope, b"range")
            if path == _START_COMMAND:
                await asyncio.sleep(self._profile.command_delay)
            try:
                await app({**scope, "path": unquote(path), "raw_path": path.encode("latin-1")}, receive, send)
            except ConnectionError:
                # It ended in the middle of a response.
                cut(scope)
                raise Cut from None
            return
        try:
            upstream = await asyncio.to_thread(target.connect, route.port)
        except OSError:
            message = "The sandbox is running but port is not open"
            status = self._status("closed.port", 502)
            await _refuse(scope, receive, send, status, message, sandboxId=route.instance_id, port=route.port)
            return
        if target.masked_host is not None:
            scope = _masked(scope, target.masked_host.replace("${PORT}", str(route.port)))
        tls = target.speaks_tls(route.port)
        if scope["type"] == "websocket":
            await forward_websocket(scope, receive, send, route.path, upstream, tls=tls)
            return
        try:
            await forward(scope, receive, send, route.path, upstream, tls=tls)
        except BadAnswer as error:
            await _refuse(scope, receive, send, 502, f"port {route.port} gave no HTTP response: {error}")
        except ConnectionError:
            cut(scope)
            raise Cut from None

    async def _absent(
        self, scope: Scope, receive: Receive, send: Send, route: Route, target: InstanceTarget | None
    ) -> None:
        """Respond that a sandbox is gone: to E2B's SDKs with E2B's text, to other clients with AGS's."""
        paused = target is not None and target.state == "paused"
        status, message = 502, "The sandbox was not found" + (": it is paused" if paused else "")
        made = target.by_e2b if target is not None else route.instance_id in self._of_e2b
        if not (route.by_sdk or made):
            name = _NAMES.get(route.port, "port")
            status = self._status("paused.envd", 409) if paused else self._status(f"gone.{name}", 404)
            message = message.replace("The sandbox", f"instance {route.instance_id}")
        await _refuse(scope, receive, send, status, message, sandboxId=route.instance_id)

    def _may(self, scope: Scope, route: Route, target: InstanceTarget) -> bool:
        if target.auth_mode == "NONE" or (target.auth_mode == "PUBLIC" and route.port != ENVD_PORT):
            return True
        if route.port == ENVD_PORT:
            return True
        if route.port == INTERPRETER_PORT and route.path.startswith("/contexts") and target.code_app is not None:
            # The code interpreter's SDKs send no token with these calls.
            return True
        return target.accepts(token_of(scope))

    def _built_in(self, route: Route, target: InstanceTarget) -> ASGIApp | None:
        if route.port == ENVD_PORT:
            return target.envd_app
        return target.code_app if route.port == INTERPRETER_PORT else None


def _with_status(send: Send, unauthorized: int) -> Send:
    """Return a function that sends another status for 401."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 401:
            message = {**message, "status": unauthorized}
        await send(message)

    return sent


def _masked(scope: Scope, host: str) -> Scope:
    """Return a request as if it had come to another host."""
    host_header = (b"host", host.encode("latin-1", "replace"))
    return {**scope, "headers": [*_without(scope, b"host")["headers"], host_header]}


def _without(scope: Scope, header: bytes) -> Scope:
    """Return a request without a header."""
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name.lower() != header]}


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str, **more: str | int) -> None:
    if scope["type"] == "websocket":
        await receive()
    has_body = status not in (204, 304)
    response = (
        JsonResponse({"code": status, "message": message, **more}, status) if has_body else Response(None, status)
    )
    await response(scope, receive, send)
