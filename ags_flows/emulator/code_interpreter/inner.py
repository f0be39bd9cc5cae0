"""The code interpreter's port for programs inside of the sandbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger("ags_flows.emulator")


class InnerServer:
    """Serves an application on a port inside of a sandbox, from the first round of the event loop on."""

    def __init__(self, sandbox: Any, port: int, app: Callable[..., Awaitable[None]]) -> None:
        """Begin to listen in the background: the sandbox's start does not wait for it."""
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[Any] = set()
        self._opening = asyncio.ensure_future(self._open(sandbox, port, app))

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        # Not cancelled: a thread may be about to create the socket, which would then stay open.
        await asyncio.gather(self._opening, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    async def _open(self, sandbox: Any, port: int, app: Callable[..., Awaitable[None]]) -> None:
        from uvicorn import Config
        from uvicorn.protocols.http.h11_impl import H11Protocol
        from uvicorn.server import ServerState

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except ConnectionError:
                # uvicorn gives a bound method of the object that holds the connection.
                send.__self__.transport.abort()

        config = Config(serve, loop="asyncio", lifespan="off", ws="none", log_config=None, access_log=False)
        config.load()
        state = ServerState()
        self._connections = state.connections

        def protocol() -> asyncio.Protocol:
            return H11Protocol(config=config, server_state=state, app_state={})

        try:
            listener = await asyncio.to_thread(sandbox.listen, port)
        except OSError as error:
            logger.info("port %d is not available inside of a sandbox: %s", port, error)
            return
        self._server = await asyncio.get_running_loop().create_server(protocol, sock=listener)
