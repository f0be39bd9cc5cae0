"""Sandboxes of this machine behind a trivial router, and the real SDKs attached to them by access token."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from e2b import AsyncSandbox as E2BAsyncSandbox
from e2b import ConnectionConfig
from e2b import Sandbox as E2BSandbox
from packaging.version import Version

from ags_flows.emulator.envd import Envd
from ags_flows.emulator.sandbox import Sandbox, SandboxSpec

TOKEN = "token-of-a-test"


class OneToken:
    """Accepts one token, which a test may change."""

    def __init__(self) -> None:
        self.token = TOKEN

    def accepts(self, token: str | None) -> bool:
        return token == self.token

    def signing_tokens(self) -> Sequence[str]:
        return [self.token]


class Served:
    """A server in a thread with any number of sandboxes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machines: dict[str, tuple[Sandbox, Envd, OneToken]] = {}
        self._made = 0
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, loop="asyncio", interface="asgi3", lifespan="off", log_level="warning", access_log=False
        )
        self._server = uvicorn.Server(config)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._server.serve(sockets=[listener]))
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            listener.close()
            self.loop.close()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.lower(): value.decode() for name, value in scope["headers"]}
        machine = self.machines.get(headers.get(b"e2b-sandbox-id", next(iter(self.machines), "")))
        if machine is not None:
            return await machine[1].app(scope, receive, send)
        body = b'{"code":502,"message":"the sandbox was not found"}'
        await send({"type": "http.response.start", "status": 502, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def call(self, coroutine: Any) -> Any:
        """Run something on the server's loop."""
        future: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(60)

    def make(self, env: dict[str, str] | None = None, **spec: Any) -> str:
        """Start a sandbox and return its id."""
        self._made += 1
        name = f"sbi-{self._made:04}"
        self.machines[name] = self.call(self._make(name, env or {}, spec))
        return name

    async def _make(self, name: str, env: dict[str, str], spec: dict[str, Any]) -> Any:
        directory = self.directory / name
        directory.mkdir()
        sandbox = await Sandbox.start(SandboxSpec(sandbox_id=name, directory=directory, hostname=name, **spec))
        access = OneToken()
        return sandbox, Envd(sandbox, access=access, env=env), access

    def kill(self, name: str) -> None:
        """End a sandbox as the emulator does."""
        sandbox, envd, _ = self.machines.pop(name)
        self.call(envd.close())
        self.call(sandbox.stop())

    def stop(self) -> None:
        """End everything."""
        for name in list(self.machines):
            self.kill(name)
        self._server.should_exit = True
        self._thread.join(30)

    def attach(self, name: str) -> E2BSandbox:
        """Return the synchronous SDK's object for a sandbox."""
        return self._attach(E2BSandbox, name)

    def attach_async(self, name: str) -> E2BAsyncSandbox:
        """Return the asynchronous SDK's object for a sandbox."""
        return self._attach(E2BAsyncSandbox, name)

    def _attach(self, kind: Any, name: str) -> Any:
        headers = {"E2b-Sandbox-Id": name, "E2b-Sandbox-Port": "49983", "X-Access-Token": TOKEN}
        config = ConnectionConfig(domain="test.invalid", sandbox_url=self.url, extra_sandbox_headers=headers)
        return kind(
            sandbox_id=name,
            sandbox_domain="test.invalid",
            envd_version=Version("0.6.13"),
            envd_access_token=TOKEN,
            traffic_access_token=None,
            connection_config=config,
        )
