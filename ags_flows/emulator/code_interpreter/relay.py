"""A path to a TCP port inside of a sandbox, for a library that makes its connections itself."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

_PIECE = 1 << 16


class Relay:
    """A Unix socket on the host whose connections go on to a port of a sandbox."""

    def __init__(self, sandbox: Any, path: str, port: int) -> None:
        """Use `open`."""
        self.path = path
        self._sandbox = sandbox
        self._port = port
        self._server: asyncio.AbstractServer | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, sandbox: Any, path: str, port: int) -> Relay:
        """Return one that listens."""
        relay = cls(sandbox, path, port)
        relay._server = await asyncio.start_unix_server(relay._accept, path)
        return relay

    async def close(self) -> None:
        """End it and all its connections."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        with suppress(OSError):
            os.unlink(self.path)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._connected(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Nothing listens on the port at the moment: the client tries again.
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = await asyncio.to_thread(self._sandbox.connect, self._port)
        there, back = await asyncio.open_connection(sock=connection)
        pumps = [asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
