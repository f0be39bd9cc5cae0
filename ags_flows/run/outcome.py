"""How a run is ending: what may be stopped depends on it."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Literal

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Pause, TerminationSignal

Ending = Literal["completed", "failed", "cancelled", "crashed", "suspended"]
"""`crashed` is what may be retried: its sandbox is left for the retry to adopt, and for the lease to end. A
`suspended` run waits for an answer, perhaps for days, and goes on in another process."""


def ending_of(error: BaseException | None) -> Ending:
    """Return how a run ends that is left by this exception.

    A SIGTERM comes both with a cancellation and with a host that goes down: only the state of the run on the server
    tells them apart. A server that does not answer means a crash: the lease ends the sandbox then.
    """
    if error is None:
        return "completed"
    if isinstance(error, Pause):
        return "suspended"
    if isinstance(error, TerminationSignal):
        return "cancelled" if _is_being_cancelled() else "crashed"
    if isinstance(error, (KeyboardInterrupt, CancelledError, GeneratorExit)):
        return "cancelled"
    return "failed"


def _is_being_cancelled() -> bool:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return True
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(context.flow_run.id).state
    except Exception:  # noqa: BLE001 - whatever keeps the server from answering
        return False
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
