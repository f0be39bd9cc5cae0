"""One sandbox's envd as an ASGI application: routes, tokens, life."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from e2b.envd.filesystem.filesystem_connect import FilesystemASGIApplication
from e2b.envd.process.process_connect import ProcessASGIApplication
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ags_flows.emulator.connection import cut
from ags_flows.emulator.envd.codecs import codecs
from ags_flows.emulator.envd.context import Context
from ags_flows.emulator.envd.filesystem import Filesystem
from ags_flows.emulator.envd.processes import Processes
from ags_flows.emulator.envd.transfers import answer, download, upload
from ags_flows.emulator.gateway.faults import Cut
from ags_flows.emulator.sandbox import Sandbox
from ags_flows.emulator.signed_urls import Expired, signed
from ags_flows.emulator.world.tokens import Tokens

DRAINED = 256 << 10
"""Bytes of a request's body that are read before an error response, as by Go's server, which envd uses.

A client that still sends would otherwise find the connection closed, and not read the response.
"""

LARGEST_MESSAGE = 256 << 20
"""Bytes of one message; the SDKs send a command's whole input in one, and compressed ones unfold in memory."""

_OPEN = {("GET", "/health"), ("POST", "/init")}
_logger = logging.getLogger(__name__)


class Envd:
    """The envd of one sandbox.

    Args:
        sandbox: The sandbox.
        access: Checks tokens.
        version: The version that it reports.
        env: Environment of every process.
        default_user: The user of calls that name none.
        default_workdir: The working directory of commands; empty for the user's home.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        access: Tokens,
        version: str = "0.6.13",
        env: Mapping[str, str] | None = None,
        default_user: str = "user",
        default_workdir: str = "",
    ) -> None:
        self.version = version
        self._access = access
        self._context = Context(sandbox, env or {}, default_user, default_workdir)
        self._processes = Processes(self._context)
        self._filesystem = Filesystem(self._context)
        options: dict[str, Any] = {"read_max_bytes": LARGEST_MESSAGE, "codecs": codecs()}
        self._process_app = ProcessASGIApplication(self._processes, **options)
        self._filesystem_app = FilesystemASGIApplication(self._filesystem, **options)
        self._open: dict[int, Scope] = {}

    @property
    def processes(self) -> list[dict[str, Any]]:
        """The processes that run: id and command."""
        return [
            {"pid": running.pid, "command": " ".join([running.config.cmd, *running.config.args])}
            for running in self._processes.all
        ]

    async def close(self) -> None:
        """End every request as the end of a machine does: its connections are cut."""
        for scope in self._open.values():
            cut(scope)
        await self._processes.close()
        await self._filesystem.close()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        self._open[id(scope)] = scope
        try:
            await self._answer(scope, receive, send)
        finally:
            del self._open[id(scope)]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path, method = scope["path"], scope["method"]
        try:
            if not self._may(request, method, path):
                response: Response = answer(401, "unauthorized access, please provide a valid access token")
            elif request.headers.get("content-type", "").startswith("application/grpc"):
                response = answer(415, "gRPC needs HTTP/2, which is not spoken here: use the Connect protocol")
            elif path.startswith("/process.Process/"):
                return await _call(self._process_app, scope, receive, send)
            elif path.startswith("/filesystem.Filesystem/"):
                return await _call(self._filesystem_app, scope, receive, send)
            else:
                response = await self._route(request, method, path)
        except HTTPException as refused:
            response = answer(refused.status_code, refused.detail)
        if response.status_code >= 400:
            await _drain(request)
        await response(scope, receive, send)

    def _may(self, request: Request, method: str, path: str) -> bool:
        if (method, path) in _OPEN:
            return True
        token = request.headers.get("x-access-token")
        if path == "/files" and token is None:
            try:
                return signed(request.scope, self._access.signing_tokens()) or self._access.accepts(token)
            except Expired as error:
                raise HTTPException(401, "signature is already expired") from error
        return self._access.accepts(token)

    async def _route(self, request: Request, method: str, path: str) -> Response:
        match (method, path):
            case ("GET", "/health"):
                return Response(status_code=204, headers={"Cache-Control": "no-store"})
            case ("GET", "/files"):
                return await download(self._context, request)
            case ("POST", "/files"):
                return await upload(self._context, request)
            case ("GET", "/envs"):
                return JSONResponse(self._context.env)
            case ("GET", "/metrics"):
                return JSONResponse(self._metrics())
            case ("POST", "/init"):
                return await self._init(request)
        return answer(404, f"{method} {path} not found")

    async def _init(self, request: Request) -> Response:
        """Set environment and defaults. The request needs a valid token, as all others do."""
        if not self._access.accepts(request.headers.get("x-access-token")):
            return answer(401, "unauthorized access, please provide a valid access token")
        try:
            given = json.loads(await request.body() or b"{}")
            env = {str(name): str(value) for name, value in (given.get("envVars") or {}).items()}
        except (ValueError, AttributeError) as error:
            raise HTTPException(400, f"the body is not JSON of the expected form: {error}") from error
        self._context.env.update(env)
        if isinstance(given.get("defaultUser"), str) and given["defaultUser"]:
            self._context.default_user = given["defaultUser"]
        if isinstance(given.get("defaultWorkdir"), str):
            self._context.default_workdir = given["defaultWorkdir"]
        return Response(status_code=204)

    def _metrics(self) -> dict[str, Any]:
        usage = self._context.sandbox.usage()
        return {
            "ts": int(time.time()),
            "cpu_count": os.cpu_count() or 1,
            "cpu_used_pct": round(usage.cpu_percent, 2),
            "mem_total": usage.memory_total,
            "mem_used": usage.memory_used,
            "mem_total_mib": usage.memory_total >> 20,
            "mem_used_mib": usage.memory_used >> 20,
            "disk_used": usage.disk_used,
            "disk_total": usage.disk_total,
        }


async def _call(service: Any, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await service(scope, receive, send)
    except Cut:
        raise
    except Exception:
        # The response has been sent. The error would close the client's connection if it were raised.
        _logger.exception("%s failed", scope["path"])


async def _drain(request: Request) -> None:
    """Read what is left of the body, if it is short."""
    read = 0
    # The error of a body that was read before.
    with contextlib.suppress(ClientDisconnect, RuntimeError):
        async for piece in request.stream():
            read += len(piece)
            if read > DRAINED:
                break
