"""Faults of the control planes, on request.

A fault waits for requests of one operation: an action of the Cloud API (``StartSandboxInstance``), a route of the
E2B API (``POST /sandboxes``, ``DELETE /sandboxes/{id}``), or ``*`` for all. The kinds:

- ``lost``: the request is carried out, then the connection is closed without a response.
- ``cut``: the connection is closed before anything was done.
- ``hang``: nothing is done and no response comes until the fault is cleared or the client gives up.
- ``error``: refused with ``code`` and ``message`` (default ``RequestLimitExceeded``).
- ``status``: the response has the HTTP status ``status`` (default 503) and a plain body; nothing is done.
- ``slow``: ``seconds`` pass before it is carried out.
- ``late``: it is carried out, then ``seconds`` pass before the response.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from ags_flows.emulator.world.given import EXACT, Count, Seconds, Status, Times

Kind = Literal["lost", "cut", "hang", "error", "status", "slow", "late"]


@dataclass
class Fault:
    """One declared fault.

    Args:
        kind: See the module's text.
        operation: What it waits for.
        times: How many requests it hits; None: until cleared.
        skip: How many matching requests pass first.
        code: The error's code, for ``error``.
        message: The error's text.
        status: The HTTP status, for ``status``.
        seconds: The delay, for ``slow`` and ``late``, in real seconds.
        retry_after: Seconds for a ``Retry-After`` header of the response, for ``status``.
    """

    kind: Kind
    operation: str = "*"
    times: Times | None = 1
    skip: Count = 0
    code: str = "RequestLimitExceeded"
    message: str = "The fault that was asked for."
    status: Status = 503
    seconds: Seconds = 1.0
    retry_after: Seconds | None = None
    fault_id: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    __pydantic_config__: ClassVar[ConfigDict] = EXACT


class Faults:
    """The declared faults of one emulator."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)
        self._cleared = asyncio.Event()

    def add(self, fault: Fault) -> int:
        """Declare a fault and return its number."""
        fault.fault_id = next(self._ids)
        self._faults.append(fault)
        return fault.fault_id

    def clear(self) -> None:
        """Forget all faults and let hanging requests go."""
        self._faults.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    def strike(self, operation: str) -> list[Fault]:
        """Return the faults that hit this request, and count it."""
        struck = []
        for fault in list(self._faults):
            if fault.operation not in ("*", operation):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.hits += 1
            struck.append(fault)
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
        return struck

    async def cleared(self) -> None:
        """Return when the faults are cleared."""
        await self._cleared.wait()

    def describe(self) -> list[dict[str, Any]]:
        """Return the faults that still wait, as JSON values."""
        return [asdict(fault) for fault in self._faults]
