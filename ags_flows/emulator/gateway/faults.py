"""Faults of connections to sandboxes, on request.

Kinds: `cut` closes the connection without a response, or after a number of bytes or seconds of one; `blackhole` keeps
the connection and sends nothing, or nothing more; `status` responds with an HTTP status, before or after the sandbox
has executed the request; `delay` delays the response; `slow` limits reads and writes to a number of bytes per second.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from starlette.types import Message, Receive, Send

from ags_flows.emulator.world.given import EXACT, Count, Seconds, Status, Times, checked

Kind = Literal["cut", "blackhole", "status", "delay", "slow"]


class Cut(Exception):
    """The connection was closed on request."""


@dataclass
class StreamFault:
    """One fault.

    Attributes:
        kind: See the text of the module.
        instance_id: The sandbox that it strikes, None for all.
        port: The port that it strikes, None for all.
        path: What the path has to contain, such as `/process.Process/Start`.
        times: How many requests it strikes, None for all until it is cleared.
        after_bytes: `cut` and `blackhole`: the bytes of the response that pass before.
        after_seconds: `cut` and `blackhole`: how long the response passes before; `delay`: how late it is.
        reset: `cut` and `blackhole`: whether the connection ends by a TCP reset.
        status: `status`: the HTTP status of the response.
        executed: `status`: whether the sandbox executes the request first, and its response is dropped.
        bytes_per_second: `slow`: how much passes.
        fault_id: Its number.
    """

    kind: Kind
    instance_id: str | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    path: str = ""
    times: Times | None = 1
    after_bytes: Count | None = None
    after_seconds: Seconds | None = None
    reset: bool = False
    status: Status = 502
    executed: bool = False
    bytes_per_second: Annotated[int, Field(ge=1)] = 65_536
    fault_id: int = field(default=0, init=False)

    __pydantic_config__: ClassVar[ConfigDict] = EXACT

    def strikes(self, instance_id: str, port: int, path: str) -> bool:
        """Return True if it is meant for a request."""
        return (
            self.times != 0
            and self.instance_id in (None, instance_id)
            and self.port in (None, port)
            and self.path in path
        )


class StreamFaults:
    """The faults that are declared at the moment."""

    def __init__(self) -> None:
        self._faults: list[StreamFault] = []
        self._numbers = itertools.count(1)
        self._cleared = asyncio.Event()

    def add(self, **values: Any) -> dict[str, Any]:
        """Declare a fault and return it.

        Raises:
            ValueError: A value is unknown, missing or wrong.
        """
        fault = checked(StreamFault, values)
        fault.fault_id = next(self._numbers)
        self._faults.append(fault)
        return asdict(fault)

    def clear(self) -> None:
        """End all faults, also those that hold a connection."""
        self._faults.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    def describe(self) -> list[dict[str, Any]]:
        """Return those that still strike."""
        return [asdict(fault) for fault in self._faults if fault.times != 0]

    def strike(self, instance_id: str, port: int, path: str) -> StreamFault | None:
        """Return the fault that a request meets, and count it."""
        for fault in self._faults:
            if fault.strikes(instance_id, port, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def released(self) -> None:
        """Return when the faults are cleared."""
        await self._cleared.wait()


_CONTENT = ("http.response.body", "http.request", "websocket.send", "websocket.receive")


def _content(message: Message) -> bytes:
    """Return what a message carries; nothing of one that only opens or closes."""
    if message["type"] not in _CONTENT:
        return b""
    return message.get("body") or message.get("bytes") or (message.get("text") or "").encode()


def slow_receive(fault: StreamFault, receive: Receive) -> Receive:
    """Return a receive function that is as slow as the fault."""

    async def slowly() -> Message:
        message = await receive()
        await asyncio.sleep(len(_content(message)) / max(1, fault.bytes_per_second))
        return message

    return slowly


async def dropped(message: Message) -> None:
    """Drop a message of a response."""


class FaultySend:
    """The response to a request that a fault strikes, as it reaches the client."""

    def __init__(self, fault: StreamFault, faults: StreamFaults, send: Send, abort: Callable[[], None]) -> None:
        self._fault = fault
        self._faults = faults
        self._send = send
        self._abort = abort
        self._passed = 0
        self._began = asyncio.get_running_loop().time()

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or what the fault leaves of it."""
        fault = self._fault
        body = _content(message)
        if fault.kind == "slow" and body:
            await asyncio.sleep(len(body) / max(1, fault.bytes_per_second))
        elif fault.kind in ("cut", "blackhole"):
            room = None if fault.after_bytes is None else max(0, fault.after_bytes - self._passed)
            late = (
                fault.after_seconds is not None
                and asyncio.get_running_loop().time() - self._began >= fault.after_seconds
            )
            if late or (room is not None and len(body) >= room and message["type"] in _CONTENT):
                if room and message["type"] == "http.response.body":
                    await self._send({**message, "body": body[:room], "more_body": True})
                await self.strike()
        self._passed += len(body)
        await self._send(message)

    async def strike(self) -> None:
        """Cut the connection, or hold it until the faults are cleared and cut it then."""
        if self._fault.kind == "blackhole":
            await self._faults.released()
        self._abort()
        raise Cut
