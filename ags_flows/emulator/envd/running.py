"""One process that was started through envd, and its listeners."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.process.process_pb import ProcessConfig, ProcessEvent

from ags_flows.emulator.envd import events
from ags_flows.emulator.sandbox import Process

CHUNK = 32 * 1024
TERMINAL_CHUNK = 16 * 1024
BEHIND = 16
"""How many pieces of output a listener may be behind before it holds the process up."""

LAST_WORDS = 0.2
"""Seconds for output that is still in the pipes of a killed process. Its children may keep them open forever."""

GONE = "the sandbox was not found"
CUT_OFF = "the connection to the sandbox ended before the stream completed"
"""The error of a stream whose sandbox has ended. On this error, the SDKs look up the state of the sandbox."""


class Listener:
    """One stream of a process's events. The process waits for a listener that reads too slowly."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[ProcessEvent | None] = asyncio.Queue(BEHIND)
        self._left = asyncio.Event()
        self.lost = False

    async def tell(self, event: ProcessEvent | None) -> None:
        """Pass it an event, None for the end. Wait while it is behind."""
        if self._left.is_set():
            return
        with suppress(asyncio.QueueFull):
            self._events.put_nowait(event)
            return
        put = asyncio.ensure_future(self._events.put(event))
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait({put, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            left.cancel()

    def lose(self) -> None:
        """End the stream immediately and drop its events: the sandbox is gone."""
        self.lost = True
        while not self._events.empty():
            self._events.get_nowait()
        self._events.put_nowait(None)
        self._left.set()

    def leave(self) -> None:
        """Note that the client has stopped reading."""
        self._left.set()

    async def events(self, keepalive: float, limit: float | None) -> AsyncIterator[ProcessEvent]:
        """Yield events until the end, and a keepalive event after a while without events.

        Args:
            keepalive: Seconds.
            limit: Seconds after which the stream ends with deadline_exceeded.
        """
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit
        while True:
            patience = keepalive if deadline is None else min(keepalive, max(0.0, deadline - loop.time()))
            try:
                event = await asyncio.wait_for(self._events.get(), patience)
            except asyncio.TimeoutError:
                if deadline is not None and loop.time() >= deadline:
                    raise ConnectError(Code.DEADLINE_EXCEEDED, "context deadline exceeded") from None
                yield events.keepalive()
                continue
            if self.lost:
                raise ConnectError(Code.UNAVAILABLE, CUT_OFF)
            if event is None:
                return
            yield event


class Running:
    """A process, its listeners, and its end.

    Attributes:
        config: How it was started.
        tag: Its tag.
        end: Its end event, once it has ended.
    """

    def __init__(self, process: Process, config: ProcessConfig, tag: str | None) -> None:
        """Take over a process; `pump` makes it run on."""
        self.process = process
        self.config = config
        self.tag = tag
        self.end: ProcessEvent | None = None
        self._listeners: set[Listener] = set()
        self._killed = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its id inside the sandbox."""
        return self.process.pid

    def listen(self) -> Listener:
        """Return a new listener, which hears what comes from now on."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """Let a listener go."""
        listener.leave()
        self._listeners.discard(listener)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to the process alone; its pipes are not waited for any more."""
        sent = self.process.signal(number)
        self._killed.set()
        return sent

    def lose(self) -> None:
        """The sandbox is gone."""
        for listener in self._listeners:
            listener.lose()
        self._killed.set()

    async def pump(self) -> None:
        """Pass output on until the end: all pipes closed, or the process killed; then send the end event."""
        pumps = [asyncio.ensure_future(self._pump(*stream)) for stream in self._streams()]
        killed = asyncio.ensure_future(self._killed.wait())
        try:
            pending: set[asyncio.Task[Any]] = set(pumps)
            while pending and not killed.done():
                _, pending = await asyncio.wait({*pending, killed}, return_when=asyncio.FIRST_COMPLETED)
                pending -= {killed}
            code = await self.process.wait()
            if pending:
                await asyncio.wait(pending, timeout=LAST_WORDS)
        finally:
            killed.cancel()
            for pump in pumps:
                pump.cancel()
            self.process.release()
        self.end = events.ended(code)
        for listener in list(self._listeners):
            await listener.tell(self.end)
            await listener.tell(None)

    def _streams(self) -> list[tuple[asyncio.StreamReader, events.Stream, int]]:
        process = self.process
        assert process.stdout is not None
        if process.stderr is None:
            return [(process.stdout, "pty", TERMINAL_CHUNK)]
        return [(process.stdout, "stdout", CHUNK), (process.stderr, "stderr", CHUNK)]

    async def _pump(self, stream: asyncio.StreamReader, name: events.Stream, chunk: int) -> None:
        while piece := await stream.read(chunk):
            # All listeners get it. Without listeners it is lost, as with envd.
            event = events.said(name, piece)
            for listener in list(self._listeners):
                await listener.tell(event)
