"""How a block of a run ends. What may be stopped, and what is left to a retry, depends on it."""

from __future__ import annotations

import sys
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import Abort, Pause, TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from ags_flows.errors import SupersededError
from ags_flows.run.prefect_contexts import time_limits_of_flows
from ags_flows.run.signals import is_by_ctrl_c, is_by_sigterm

Ending = Literal["completed", "failed", "cancelled", "crashed", "suspended", "superseded"]
"""How a block ends.

`crashed` may be retried: its sandbox is left for the retry to take over, and for the lease to end. A `suspended` run
waits for input, perhaps for days, and goes on in another process. A `superseded` attempt lets go of everything: a later
attempt of the same run has taken it over.
"""

REQUEST_TIMEOUT = 5.0
"""Seconds for one request to the Prefect server: a runner kills the process 30 seconds after the SIGTERM."""

REQUEST_RETRIES = 2

MOST_ANCESTORS = 64

_DEATHS = (TerminationSignal, CancelledError, Abort)
"""Exceptions that a cancellation and a crash have in common."""

_OVER = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING)
_CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)

_ADJUSTED = 0.001
"""Part of a duration by which the clock of a host may be adjusted while a run executes."""


def enclosing_run() -> UUID | None:
    """Return the id of the innermost flow run around the caller, None outside of flow runs.

    A block that may be left without a run context, such as one that the garbage collector closes, reads it when it is
    entered and passes it to `ending_of`.
    """
    flow_context = FlowRunContext.get()
    if flow_context is not None and flow_context.flow_run is not None:
        return flow_context.flow_run.id
    task_context = TaskRunContext.get()
    return task_context.task_run.flow_run_id if task_context is not None else None


def ending_of(error: BaseException | None, flow_run_id: UUID | None = None, *, in_coroutine: bool = False) -> Ending:
    """Return how a block ends that is left by this exception.

    | exception | ending |
    |---|---|
    | none | `completed` |
    | `SupersededError` | `superseded` |
    | Prefect's `Pause` | `suspended` |
    | `KeyboardInterrupt`, and Ctrl-C while asyncio runs | `cancelled` |
    | `CancelledError` after the time limit of the enclosing task or flow | `failed` |
    | `CancelledError` in a coroutine, without a signal | `cancelled`, see below |
    | `TerminationSignal`, other `CancelledError`, Prefect's `Abort` | `cancelled` or `crashed`, see below |
    | `GeneratorExit` | by the state of the flow run, see below |
    | any other | `failed` |

    A SIGTERM comes both with a cancellation and with a host that goes down; an async flow gets a `CancelledError` for
    either. The states on the Prefect server distinguish them: `cancelled` if the flow run, or a flow run that it is
    nested in, is being cancelled, otherwise `crashed`. If the server does not respond, it is `crashed`. Outside of
    flow runs, also in a task without a flow, no later attempt can take anything over: it is `cancelled`.

    A signal raises an exception in the event loop, and the loop cancels all coroutines while it handles that exception.
    A coroutine that was cancelled without one was cancelled by the program, for example by `asyncio.timeout` or by a
    `TaskGroup`, and no later attempt goes on with it: `cancelled`.

    A `GeneratorExit` proves nothing about the run: the last reference to a block that was never left is gone. If the
    run has crashed, or the interpreter is shutting down, it is `crashed`; if the run is suspended, it is `suspended`;
    otherwise the caller dropped the block, and it is `cancelled`.

    Args:
        error: What the block is left by, None if it is left normally.
        flow_run_id: The flow run around the block, as `enclosing_run` returned it. Default: the present one.
        in_coroutine: Whether the block belongs to a coroutine.
    """
    if error is None:
        return "completed"
    if isinstance(error, SupersededError):
        return "superseded"
    if isinstance(error, Pause):
        return "suspended"
    if in_coroutine and isinstance(error, CancelledError) and not is_by_sigterm(error) and not _is_timed_out():
        return "cancelled"
    return _ending_by_death(error, flow_run_id or enclosing_run()) or "failed"


def is_death(error: BaseException | None) -> bool:
    """Return True if an exception is one that a cancellation and a crash have in common."""
    return isinstance(error, _DEATHS)


def ending_by_signal(signal: BaseException, flow_run_id: UUID | None) -> Ending:
    """Return how the blocks of a flow run end because of an exception of `signal_in_main_thread`."""
    return _cancelled_or_crashed(flow_run_id) if is_by_sigterm(signal) else "cancelled"


def is_cancelled(flow_run_id: UUID) -> bool:
    """Return True if a flow run, or a flow run that it is nested in, is being cancelled or was cancelled.

    Raises:
        Exception: Any error of Prefect's client: the server did not respond, or does not know the run.
    """
    return _states_on_path(flow_run_id)[-1] in _CANCELLED


def is_timed_out(flow_run_id: UUID) -> bool:
    """Return True if a flow run whose time limit is over was ended by it, or will be: it had not ended before.

    Raises:
        Exception: Any error of Prefect's client: the server did not respond, or does not know the run.
    """
    with _client() as api:
        state = api.read_flow_run(flow_run_id).state
    return state is None or not state.is_final() or state.name == "TimedOut"


def has_ended(flow_run_id: UUID) -> bool:
    """Return True if a flow run, or the outermost one that it is nested in, has ended, and not by a crash.

    Raises:
        Exception: Any error of Prefect's client: the server did not respond, or does not know the run.
    """
    return _states_on_path(flow_run_id)[-1] in _OVER


def _ending_by_death(error: BaseException, run: UUID | None) -> Ending | None:
    """Return how the process or the run ends, None if the exception is a failure of the block."""
    if is_by_ctrl_c(error):
        return "cancelled"
    if isinstance(error, CancelledError) and _is_timed_out():
        return None
    if isinstance(error, _DEATHS):
        return _cancelled_or_crashed(run)
    if isinstance(error, GeneratorExit):
        # `close()` was called while the run was being ended by this exception.
        if isinstance(error.__context__, _DEATHS):
            return _cancelled_or_crashed(run)
        return _ending_of_dropped(run)
    return None


def _cancelled_or_crashed(run: UUID | None) -> Ending:
    if run is None:
        return "cancelled"
    try:
        return "cancelled" if is_cancelled(run) else "crashed"
    except Exception:  # noqa: BLE001 - whatever keeps the server from responding
        return "crashed"


def _ending_of_dropped(run: UUID | None) -> Ending:
    if sys.is_finalizing():
        return "crashed"
    if run is None:
        return "cancelled"
    try:
        states = _states_on_path(run)
    except Exception:  # noqa: BLE001 - whatever keeps the server from responding
        return "crashed"
    if states[-1] in _CANCELLED:
        return "cancelled"
    if StateType.CRASHED in states:
        return "crashed"
    return "suspended" if StateType.PAUSED in states else "cancelled"


def _states_on_path(flow_run_id: UUID) -> list[StateType | None]:
    """Return the states of a flow run and of the flow runs that it is nested in, innermost first.

    The first state of a cancellation is the last one in the list. A run of a deployment is a root: it has a separate
    process, and does not end with its parent.
    """
    states: list[StateType | None] = []
    with _client() as api:
        following: UUID | None = flow_run_id
        while following is not None and len(states) < MOST_ANCESTORS:
            run = api.read_flow_run(following)
            states.append(run.state.type if run.state is not None else None)
            if states[-1] in _CANCELLED or run.parent_task_run_id is None or run.deployment_id is not None:
                break
            following = api.read_task_run(run.parent_task_run_id).flow_run_id
    return states


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    settings = {PREFECT_CLIENT_MAX_RETRIES: REQUEST_RETRIES}
    with temporary_settings(settings), get_client(httpx_settings={"timeout": REQUEST_TIMEOUT}, sync_client=True) as api:
        yield api


def _is_timed_out() -> bool:
    """Return True if the time limit of an enclosing flow, or of the task, is over.

    Inside, such a timeout is a cancellation.
    """
    if any(limit.is_over(_ADJUSTED) for limit in time_limits_of_flows() if not limit.elsewhere):
        return True
    context = TaskRunContext.get()
    limit = context.task.timeout_seconds if context is not None else None
    if context is None or limit is None:
        return False
    return time.time() - context.start_time.timestamp() >= limit * (1 - _ADJUSTED)
