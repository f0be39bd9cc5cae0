"""Chosen ports of this machine, served on the same ports inside of a sandbox: off unless the user names them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ags_flows.emulator.sandbox.egress import pass_on


class HostPorts:
    """Passes connections to ports inside on to the same ports of this machine's loopback interface.

    Args:
        listen: Returns a socket that listens on a port inside.
        ports: The ports. One on which a program inside listens already stays that program's.
    """

    def __init__(self, listen: Callable[[int], socket.socket], ports: Sequence[int]) -> None:
        """Serve from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        for port in ports:
            with contextlib.suppress(OSError):
                listener = listen(port)
                listener.setblocking(False)
                self._listeners.append(listener)
                self._start(self._accept(listener, port))

    def close(self) -> None:
        """Cut all open connections and stop serving."""
        for task in list(self._tasks):
            task.cancel()
        for listener in self._listeners:
            # Its task may be waiting on it: the loop must forget it first.
            self._loop.remove_reader(listener)
            listener.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError:
                # Out of descriptors, or the sandbox has gone.
                await asyncio.sleep(0.1)
                continue
            self._start(self._serve(connection, port))

    async def _serve(self, connection: socket.socket, port: int) -> None:
        inside: asyncio.StreamWriter | None = None
        outside: asyncio.StreamWriter | None = None
        try:
            reader, inside = await asyncio.open_connection(sock=connection)
            answers, outside = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pass_on(reader, outside), pass_on(answers, inside))
        except OSError:
            return
        finally:
            for end in (inside, outside):
                if end is not None:
                    end.transport.abort()
            if inside is None:
                connection.close()
