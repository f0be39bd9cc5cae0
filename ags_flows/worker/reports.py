"""Reports of a worker to the Prefect server, which are repeated until the server responds."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed

from ags_flows.worker.patience import patiently

FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})
LEFT = FINAL | {StateType.PAUSED, StateType.SCHEDULED}
"""States that need no report: the flow has reported its end, or goes on elsewhere."""


async def state_of(client: PrefectClient, run: UUID) -> StateType | None:
    """Return the type of a flow run's state, None if there is no such flow run."""
    try:
        found = (await client.read_flow_run(run)).state
    except ObjectNotFound:
        return None
    return found.type if found is not None else None


async def report_crashed(client: PrefectClient, run: UUID, message: str) -> None:
    """Set the state Crashed, unless the flow run has reported its end or goes on elsewhere."""
    await _report(client, run, Crashed(message=message), LEFT)


async def report_cancelled(client: PrefectClient, run: UUID) -> None:
    """Set the state Cancelled, unless the flow run has ended."""
    await _report(client, run, Cancelled(message="The worker has stopped the sandbox."), FINAL, force=True)


async def _report(client: PrefectClient, run: UUID, new: State[Any], known: Collection[StateType], **how: bool) -> None:
    once: PrefectClient = getattr(client, "impatient", client)

    async def report() -> None:
        # Each time: a response may have been lost, and a retry have begun since.
        if await state_of(once, run) in (None, *known):
            return
        with suppress(Abort, ObjectNotFound):
            await once.set_flow_run_state(run, new, **how)

    await patiently(report)
