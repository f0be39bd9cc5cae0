"""Reports of a worker to the Prefect server, which are repeated until the server responds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed

T = TypeVar("T")

FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})
LEFT = FINAL | {StateType.PAUSED, StateType.SCHEDULED}
"""States that need no report: the flow has reported its end, or goes on elsewhere."""

PATIENCE = 600.0
"""Seconds for which a request is repeated."""


async def state_of(client: PrefectClient, run: UUID) -> StateType | None:
    """Return the type of a flow run's state, None if there is no such flow run."""
    return await _persistently(partial(_state, client, run))


async def report_crashed(client: PrefectClient, run: UUID, message: str) -> None:
    """Set the state Crashed, unless the flow run has reported its end or goes on elsewhere."""

    async def report() -> None:
        if await _state(client, run) in LEFT:
            return
        with suppress(Abort, ObjectNotFound):
            await client.set_flow_run_state(run, Crashed(message=message))

    await _persistently(report)


async def report_cancelled(client: PrefectClient, run: UUID) -> None:
    """Set the state Cancelled, unless the flow run has ended."""

    async def report() -> None:
        if await _state(client, run) in (None, *FINAL):
            return
        with suppress(Abort, ObjectNotFound):
            cancelled: State[Any] = Cancelled(message="The worker has stopped the sandbox.")
            await client.set_flow_run_state(run, cancelled, force=True)

    await _persistently(report)


async def _state(client: PrefectClient, run: UUID) -> StateType | None:
    try:
        found = (await client.read_flow_run(run)).state
    except ObjectNotFound:
        return None
    return found.type if found is not None else None


async def _persistently(action: Callable[[], Awaitable[T]]) -> T:
    """Ask the Prefect server until it responds."""
    began, pause = time.monotonic(), 1.0
    while True:
        try:
            return await action()
        except Exception:
            if time.monotonic() - began > PATIENCE:
                raise
        await asyncio.sleep(pause)
        pause = min(30.0, pause * 2)
