"""The Prefect contexts around a call, outermost first: the only module that uses a private name of Prefect.

`FlowRunContext.get()` and `TaskRunContext.get()` return the innermost context. The context around it is the old value
of the token that its `ContextVar` returned, which Prefect keeps in `_token`. A context that came from another process
(process pools, Dask, Ray) has no such predecessor: what encloses it is sent with it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import Token
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from cachetools import LRUCache
from prefect.context import ContextModel, FlowRunContext, TaskRunContext

from ags_flows.cloud.forks import ModuleLock

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=ContextModel)

CARRIED = "ags-flows"
"""Key of `FlowRun.context` for what is sent with the context of a flow run to other processes."""

LIMITS = "limits"
"""Key therein for the time limits of the flows around it, each with its flow run, its length and its end."""

_attempts: LRUCache[UUID, dict[float, int]] = LRUCache(10_000)
_lock = ModuleLock()


def flow_contexts() -> list[FlowRunContext]:
    """Return the contexts of the flow runs that this call is in, outermost first.

    A run that has a deployment is the outermost one: it was created to be executed elsewhere.
    """
    found: dict[UUID, FlowRunContext] = {}
    for context in _outwards(FlowRunContext.get()):
        if context.flow_run is not None:
            # Prefect enters the context of a run more than once.
            found.setdefault(context.flow_run.id, context)
            if context.flow_run.deployment_id is not None:
                break
    return list(found.values())[::-1]


@dataclass(frozen=True, eq=False)
class TimeLimit:
    """The time limit of a flow run.

    Attributes:
        context: The context of the flow run.
        seconds: Its length.
        ends: When it is over, by the clock of `time.monotonic`.
        flow_run_id: The flow run.
        elsewhere: Whether another process executes it. It may have ended before, such as that of a background task.
    """

    context: FlowRunContext
    seconds: float
    ends: float
    flow_run_id: UUID
    elsewhere: bool = False

    def is_over(self, tolerance: float = 0.0) -> bool:
        """Return True if the time is over, but for a part of it."""
        return time.monotonic() > self.ends - self.seconds * tolerance

    def is_void(self) -> bool:
        """Return True if the flow has ended within its time limit. It leaves its context also at the time limit."""
        return is_left(self.context) and not self.is_over()


def time_limits_of_flows() -> tuple[TimeLimit, ...]:
    """Return the time limits of the flows around this call."""
    limits: list[TimeLimit] = []
    since = time.monotonic() - time.time()
    for context in flow_contexts():
        if (sent := carried(context)) is not None:
            # In another process each task begins with a new context.
            for run, seconds, ends in sent.get(LIMITS, ()):
                limits.append(TimeLimit(context, seconds, since + ends, UUID(run), elsewhere=True))
        elif context.flow and context.flow_run and (seconds := context.flow.timeout_seconds) is not None:
            ends = context.start_time.timestamp() + seconds
            limits.append(TimeLimit(context, seconds, since + ends, context.flow_run.id))
    return tuple(limits)


def is_elsewhere() -> bool:
    """Return True if the flow runs around this call are executed by another process, which gets their signals."""
    contexts = flow_contexts()
    return bool(contexts) and contexts[0].detached


def task_contexts() -> list[TaskRunContext]:
    """Return the contexts of the task runs that this call is in, outermost first."""
    found: dict[UUID, TaskRunContext] = {}
    for context in _outwards(TaskRunContext.get()):
        found.setdefault(context.task_run.id, context)
    return list(found.values())[::-1]


def carry(value: Callable[[], dict[str, Any]]) -> None:
    """Send a value with each context of a flow run that Prefect sends to another process.

    Args:
        value: Called in the process that sends. What it returns can be pickled.
    """
    serialize = FlowRunContext.serialize

    @functools.wraps(serialize)
    def carrying(self: FlowRunContext, *args: Any, **options: Any) -> dict[str, Any]:
        sent = serialize(self, *args, **options)
        if self is FlowRunContext.get() and (run := sent.get("flow_run")):
            try:
                run["context"] = {**(run.get("context") or {}), CARRIED: {**value(), LIMITS: _limits_to_send()}}
            except Exception:  # noqa: BLE001 - other tasks of the process must not fail because of this package
                logger.debug("The path of executions could not be sent", exc_info=True)
        return sent

    setattr(FlowRunContext, "serialize", carrying)  # noqa: B010 - a method is not assignable for type checkers


def _limits_to_send() -> list[tuple[str, float, float]]:
    """Return flow run, length and end of each time limit around this call, the end in seconds since the epoch."""
    since = time.time() - time.monotonic()
    return [(str(limit.flow_run_id), limit.seconds, limit.ends + since) for limit in time_limits_of_flows()]


def carried(context: FlowRunContext) -> dict[str, Any] | None:
    """Return what was sent with a context, None in the process in which the flow run is executed."""
    sent: dict[str, Any] | None = (context.flow_run.context or {}).get(CARRIED) if context.flow_run else None
    return sent if context.detached else None


def is_left(context: ContextModel) -> bool:
    """Return True if the block of a context has ended in this process."""
    return context._token is None


def attempt_of_task(context: TaskRunContext) -> int:
    """Return the number of the attempt at a task run that a context belongs to, from 1.

    Prefect counts on one object for all attempts. A thread that outlives its attempt would count itself as the next
    one, so the number is kept for each context from the first time that it is asked for. A context that is asked for
    the first time after its attempt has ended belongs to an attempt before the present one.
    """
    run, entered = context.task_run, context.start_time.timestamp()
    with _lock:
        attempts = _attempts.setdefault(run.id, {})
        if entered not in attempts:
            attempts[entered] = max(1, (run.run_count or 1) - is_left(context))
        return attempts[entered]


def _outwards(context: C | None) -> Iterator[C]:
    while context is not None:
        yield context
        token: Any = context._token
        context = None if token is None or token.old_value is Token.MISSING else token.old_value
