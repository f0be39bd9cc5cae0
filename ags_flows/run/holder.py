"""Who calls: the identity of a step and the owner of what it creates, from Prefect's run context."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext

from ags_flows.models import ToolSpec
from ags_flows.ownership import Identity, Owner, belonging_to, fingerprint

_REMEMBERED_ATTEMPTS = 256


@dataclass
class _Attempt:
    """What one attempt of one flow run has called so far, to tell identical calls apart."""

    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    task_runs: dict[tuple[UUID, str], int] = field(default_factory=dict)


_attempts: OrderedDict[tuple[str, int], _Attempt] = OrderedDict()
_outermost: dict[UUID, FlowRun] = {}
_lock = threading.Lock()


@dataclass
class Scope:
    """A piece of work of a flow run that has steps of its own and may run in any thread, such as an item of a batch.

    Attributes:
        run: The flow run, or what stands for it.
        name: Names the work, the same in every attempt at it.
        owner: Whose the work is.
    """

    run: str
    name: str
    owner: Owner
    calls: dict[tuple[str, str], int] = field(default_factory=dict)


_scope: ContextVar[Scope | None] = ContextVar("ags_flows_scope", default=None)


@contextmanager
def acting_as(scope: Scope) -> Iterator[None]:
    """Give the steps of this block their identities from a scope, not from the flow run that may surround it."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def identify(step: str, arguments: Any) -> Identity:
    """Return the identity of the step that is being executed.

    Outside of runs every call is a step of its own: there is nothing that could run it again. A task run without a
    flow is retried by itself alone.

    Args:
        step: The task's name, with the step's own name where the caller gave one.
        arguments: What makes the step what it is, JSON-like.
    """
    parameters = fingerprint(arguments)
    scope = _scope.get()
    if scope is not None:
        count = scope.calls.get((step, parameters), 0)
        scope.calls[step, parameters] = count + 1
        return Identity(scope.run, f"{scope.name}/{step}", parameters, count)
    run = _flow_run()
    if run is None:
        context = TaskRunContext.get()
        return Identity(f"local-{context.task_run.id if context else uuid.uuid4()}", step, parameters)
    occurrence = _occurrence((str(run.id), run.run_count or 0), step, parameters)
    return Identity(str(run.id), step, parameters, occurrence)


def owner() -> Owner:
    """Return the flow run and the process that are executing."""
    scope = _scope.get()
    if scope is not None:
        return scope.owner
    host, pid = socket.gethostname(), os.getpid()
    context = FlowRunContext.get()
    run = _flow_run()
    if run is None or context is None or context.flow_run is None:
        return Owner(flow_run_id="", host=host, pid=pid)
    return Owner(
        flow_run_id=str(run.id),
        flow_run_name=run.name or "",
        flow_id=str(run.flow_id),
        deployment=str(run.deployment_id or ""),
        subflow_run_id=str(context.flow_run.id) if context.flow_run.id != run.id else "",
        host=host,
        pid=pid,
    )


def for_this_run(spec: ToolSpec) -> ToolSpec:
    """Return the spec of a tool that this flow run deletes at its end: when it cannot any more, the reaper may."""
    return spec.model_copy(update={"tags": {**spec.tags, **belonging_to(owner())}})


def is_first_attempt() -> bool:
    """Whether this is provably the first time that this step is executed, so that nothing can be there already.

    A run that was suspended and resumed has a run count of 1 again, but has been running for some time before.
    """
    if _scope.get() is not None:
        # The same work may have been begun by an earlier attempt, or by another process.
        return False
    run, context = _flow_run(), TaskRunContext.get()
    if context is not None and (context.task_run.run_count or 0) > 1:
        return False
    if run is None:
        return True
    return (run.run_count or 0) <= 1 and not run.total_run_time


def _occurrence(attempt_key: tuple[str, int], step: str, parameters: str) -> int:
    context = TaskRunContext.get()
    call = (step, parameters)
    with _lock:
        attempt = _attempts.setdefault(attempt_key, _Attempt())
        _attempts.move_to_end(attempt_key)
        while len(_attempts) > _REMEMBERED_ATTEMPTS:
            _attempts.popitem(last=False)
        if context is None:
            count = attempt.calls.get(call, 0)
            attempt.calls[call] = count + 1
            return count
        # A retry of the task by Prefect executes the same task run again: it keeps its occurrence.
        known = (context.task_run.id, step)
        if known not in attempt.task_runs:
            attempt.task_runs[known] = attempt.calls.get(call, 0)
            attempt.calls[call] = attempt.task_runs[known] + 1
        return attempt.task_runs[known]


def _flow_run() -> FlowRun | None:
    """Return the outermost flow run.

    A nested flow gets a new run, with a new id, on every attempt of its parent: only the outermost one is the same
    after a retry.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    run = context.flow_run
    if run.parent_task_run_id is None:
        return run
    with _lock:
        known = _outermost.get(run.id)
    if known is None:
        known = _climb(run)
        with _lock:
            _outermost[run.id] = known
    return known


def _climb(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        while run.parent_task_run_id is not None:
            parent = client.read_task_run(run.parent_task_run_id).flow_run_id
            if parent is None:
                return run
            run = client.read_flow_run(parent)
    return run
