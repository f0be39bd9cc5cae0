"""The Prefect contexts around a call, outermost first: the only module that uses a private name of Prefect.

`FlowRunContext.get()` and `TaskRunContext.get()` return the innermost context. The context around it is the old value
of the token that its `ContextVar` returned, which Prefect keeps in `_token`. A context that came from another process
(process pools, Dask, Ray) has no such predecessor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import Token
from typing import Any, TypeVar
from uuid import UUID

from cachetools import LRUCache
from prefect.context import ContextModel, FlowRunContext, TaskRunContext

C = TypeVar("C", bound=ContextModel)

_attempts: LRUCache[UUID, dict[float, int]] = LRUCache(10_000)
_lock = threading.Lock()


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


def task_contexts() -> list[TaskRunContext]:
    """Return the contexts of the task runs that this call is in, outermost first."""
    found: dict[UUID, TaskRunContext] = {}
    for context in _outwards(TaskRunContext.get()):
        found.setdefault(context.task_run.id, context)
    return list(found.values())[::-1]


def is_left(context: FlowRunContext) -> bool:
    """Whether the block of a context has ended in this process."""
    return context._token is None


def attempt_of_task(context: TaskRunContext) -> int:
    """Return the number of the attempt at a task run that a context belongs to, from 1.

    Prefect counts on one object for all attempts. A thread that outlives its attempt would count itself as the next
    one, so the number is kept for each context from the first time that it is asked for; a context that was entered
    before one that is known belongs to an earlier attempt.
    """
    run, entered = context.task_run, context.start_time.timestamp()
    with _lock:
        attempts = _attempts.setdefault(run.id, {})
        if entered not in attempts:
            later = [attempt for start, attempt in attempts.items() if start > entered]
            attempts[entered] = max(1, min(later) - 1) if later else max(1, run.run_count or 1)
        return attempts[entered]


def _outwards(context: C | None) -> Iterator[C]:
    while context is not None:
        yield context
        token: Any = context._token
        context = None if token is None or token.old_value is Token.MISSING else token.old_value
