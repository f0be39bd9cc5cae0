"""The holder of a call, and its step: from the Prefect contexts around it.

The frames of a holder are the executions that a retry would execute again: flow runs whose parent executes in this
process, tasks of the user's, items of a batch. A run that has a deployment is a root: another process executes it, it
survives its own retries, and the end of its parent means nothing for it.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext

from ags_flows.cloud.forks import ModuleLock
from ags_flows.models import ToolSpec
from ags_flows.ownership import (
    LONGEST_RUN,
    Frame,
    Holder,
    Owner,
    Place,
    Step,
    belonging_to,
    digest,
    fingerprint,
    run_tool_name,
)
from ags_flows.run.fingerprints import of_parameters
from ags_flows.run.prefect_contexts import attempt_of_task, carried, carry, flow_contexts, task_contexts

STEP = "__ags_step__"
"""Attribute of the function of a task of this package: its run is the call itself, and no execution around it."""

INTERNAL = "__ags_internal__"
"""Attribute of the function of a task that only shows in the UI what this package does, such as a batch's item."""

_REMEMBERED = 50_000
"""Executions of this process. A flow that maps more tasks must still find its first session and its parameters."""

_fingerprints: LRUCache[UUID, str] = LRUCache(_REMEMBERED)
_orders: LRUCache[tuple[str, tuple[Frame, ...]], dict[str, int]] = LRUCache(_REMEMBERED)
_unknown: LRUCache[UUID, _Acting] = LRUCache(_REMEMBERED)
_lock = ModuleLock()


@dataclass(frozen=True)
class Execution:
    """What is being executed around a call.

    Attributes:
        frames: The executions that enclose the call, outermost first; empty outside of runs.
        place: Where they are, by what they do.
        owner: The flow run, and the process, on whose behalf the call is made.
    """

    frames: tuple[Frame, ...] = ()
    place: Place = Place()
    owner: Owner = field(default_factory=lambda: Owner("", host=socket.gethostname(), pid=os.getpid()))

    def rooted(self) -> Execution:
        """Return an execution with a root: outside of runs a new one, whose steps no other execution has."""
        return self if self.frames else replace(self, frames=(Frame("task", uuid.uuid4().hex),))

    def within_item(self, key: str, attempt: int) -> Execution:
        """Return the execution of one attempt at an item of a batch.

        Another attempt is another item: what failed is done again, also in the same sandbox. A retry of the flow run
        goes on with the attempt that had begun.
        """
        name = f"{key}#{attempt}"
        frame = Frame("item", digest(name))
        return replace(self, frames=(*self.frames, frame), place=self.place.within("item", name))

    def step(self, name: str, does: Any, *, step: str = "", call: str = "") -> Step:
        """Return a step that is made in this execution.

        Args:
            name: What kind of step it is.
            does: What it does, JSON-like.
            step: The caller's own name for it.
            call: Id of the call; by default a new one.
        """
        call = call or uuid.uuid4().hex
        root = self.frames[0].id if self.frames else call
        full_name = f"{name}/{step}" if step else name
        return Step(full_name, fingerprint(does), root, self.place, Holder((*self.frames, Frame("call", call))))


@dataclass(frozen=True)
class _Acting:
    """An execution that Prefect does not know, and the ids of the Prefect runs around it."""

    execution: Execution
    outer: frozenset[UUID]


_acting: ContextVar[_Acting | None] = ContextVar("ags_flows_acting", default=None)
_call: ContextVar[str] = ContextVar("ags_flows_one_call", default="")


@contextmanager
def acting_as(execution: Execution) -> Iterator[None]:
    """Make the steps of this block steps of an execution, such as of an item of a batch in a thread of its pool."""
    token = _acting.set(_Acting(execution, _runs_around()))
    try:
        yield
    finally:
        _acting.reset(token)


@contextmanager
def one_call() -> Iterator[None]:
    """Make the steps of this block steps of one call, such as a function that is repeated after a lost response."""
    token = _call.set(uuid.uuid4().hex)
    try:
        yield
    finally:
        _call.reset(token)


def current_execution() -> Execution:
    """Return what is being executed around this call."""
    flows, tasks = flow_contexts(), task_contexts()
    acting = _acting.get() or (_sent_with(flows[0]) if flows else None)
    base, outer = (acting.execution, acting.outer) if acting is not None else (Execution(), frozenset[UUID]())
    frames, place = list(base.frames), base.place
    # The tasks of each flow run come behind it, those of none before all others.
    levels: list[FlowRunContext | None] = [None, *flows]
    for flow in levels:
        run = flow.flow_run if flow is not None else None
        if flow is not None and run is not None and run.id not in outer:
            frames.append(Frame("flow", run.id.hex, attempt_of(run)))
            if len(frames) > 1:
                place = _within(place, run.id, flow.flow.name if flow.flow else "", flow.parameters)
        for task in tasks:
            task_run = task.task_run
            if task_run.flow_run_id != (run.id if run else None) or task_run.id in outer or _is_own(task):
                continue
            frames.append(Frame("task", task_run.id.hex, attempt_of_task(task)))
            if len(frames) > 1:
                place = _within(place, task_run.id, task.task.name, task.parameters)
    owner = base.owner if acting is not None else _owner([context.flow_run for context in flows if context.flow_run])
    return Execution(tuple(frames), place, owner)


def _runs_around() -> frozenset[UUID]:
    """Return the ids of the Prefect runs around this call that this process knows."""
    flows = {context.flow_run.id for context in flow_contexts() if context.flow_run}
    return frozenset(flows | {context.task_run.id for context in task_contexts()})


def _to_send() -> dict[str, Any]:
    """Return what encloses a task or a subflow that Prefect sends to another process, to be read by `_sent_with`."""
    execution = current_execution()
    return {
        "frames": str(Holder(execution.frames)),
        "place": list(execution.place.path),
        "owner": asdict(execution.owner),
        "outer": [str(one) for one in _runs_around() | _outer()],
    }


def _outer() -> frozenset[UUID]:
    acting = _acting.get()
    return acting.outer if acting is not None else frozenset()


def _sent_with(context: FlowRunContext) -> _Acting | None:
    """Return what encloses a context that came from another process, as that process knew it.

    The Prefect server does not know it: it has the present attempts, and a context may belong to an earlier one.
    """
    sent = carried(context)
    if sent is None:
        return _of_unknown_attempt(context) if _has_parent(context.flow_run) else None
    enclosing = Holder.parse(sent["frames"])
    # Another version of this package may have sent it.
    known = {one.name: sent["owner"].get(one.name, "") for one in fields(Owner)}
    owner = replace(Owner(**known), host=socket.gethostname(), pid=os.getpid())
    execution = Execution(enclosing.frames if enclosing else (), Place(tuple(sent["place"])), owner)
    return _Acting(execution, frozenset(UUID(one) for one in sent["outer"]))


def _of_unknown_attempt(context: FlowRunContext) -> _Acting:
    """Return the execution of a subflow whose process had not imported this package when it sent the context.

    It cannot be compared with any other: it is a root, takes nothing over, and nothing of it is taken over. The flow
    runs on its path are read from the Prefect server, for the reaper.
    """
    assert context.flow_run is not None
    with _lock:
        known = _unknown.get(context.flow_run.id)
    if known is None:
        parents = _climb(context.flow_run)
        frames = (Frame("task", uuid.uuid4().hex), *(Frame("flow", parent.id.hex) for parent in parents))
        known = _Acting(Execution(frames, owner=_owner([*parents, context.flow_run])), frozenset())
        with _lock:
            known = _unknown.setdefault(context.flow_run.id, known)
    return known


def identify(name: str, does: Any, *, step: str = "", ordered: bool = False) -> Step:
    """Return the step that is being executed.

    Args:
        name: What kind of step it is, the task's name.
        does: What it does, JSON-like. No values of secrets, indexes, time limits or log options.
        step: The caller's own name for it.
        ordered: Whether equal steps in a row of one execution are distinguished by their order, as starts of sandboxes
            are: the first one of a retry must not get the sandbox of the second one. The order is that of this process,
            and only a hint: if it is wrong, a retry starts a new sandbox.
    """
    context = TaskRunContext.get()
    is_step = context is not None and hasattr(context.task.fn, STEP)
    call = context.task_run.id.hex if context is not None and is_step else _call.get()
    made = current_execution().step(name, does, step=step, call=call)
    if not ordered or not made.holder.enclosing:
        return made
    with _lock:
        calls = _orders.setdefault((made.family, made.holder.enclosing), {})
        order = calls.setdefault(made.holder.call, len(calls))
    return replace(made, name=f"{made.name}#{order}") if order else made


def is_in_execution() -> bool:
    """Return True if this call is made in a run, or in an item of a batch. A plain thread does not inherit that."""
    return _acting.get() is not None or FlowRunContext.get() is not None or TaskRunContext.get() is not None


def owner() -> Owner:
    """Return the flow run and the process that are executing."""
    return current_execution().owner


def for_this_run(spec: ToolSpec) -> ToolSpec:
    """Return the spec of a tool that is made for this run alone, and deleted at its end.

    Its name ends with digits of the spec's fingerprint and of the run's id, so that no other run, and no other spec of
    that name in this run, meets it. Its tags name the run, so that the reaper can delete it.
    """
    execution = current_execution()
    root = execution.frames[0].id if execution.frames else uuid.uuid4().hex
    tags = {**spec.tags, **belonging_to(execution.owner)}
    name = run_tool_name(spec.name, fingerprint(spec.model_dump(mode="json")), root)
    return spec.model_copy(update={"name": name, "tags": tags})


def attempt_of(run: FlowRun) -> int:
    """Return a number that is greater in every later execution of a flow run, and 1 in the first one.

    Prefect raises `run_count` with every retry, but not when a suspended run is resumed. Then `total_run_time`, which
    the server adds up at the end of each execution, has grown. It is a difference of the server's clock, which may be
    adjusted, so it only decides between executions of the same count.
    """
    microseconds = (run.total_run_time or timedelta()) // timedelta(microseconds=1)
    return (max(1, run.run_count or 1) - 1) * LONGEST_RUN + min(max(0, microseconds), LONGEST_RUN - 1) + 1


def _is_own(context: TaskRunContext) -> bool:
    return hasattr(context.task.fn, STEP) or hasattr(context.task.fn, INTERNAL)


def _within(place: Place, run: UUID, name: str, parameters: dict[str, Any] | None) -> Place:
    with _lock:
        known = _fingerprints.get(run)
    if known is None:
        known = of_parameters(parameters)
        with _lock:
            _fingerprints[run] = known
    return place.within(name, known)


def _owner(runs: Sequence[FlowRun]) -> Owner:
    host, pid = socket.gethostname(), os.getpid()
    if not runs:
        return Owner("", host=host, pid=pid)
    root, innermost = runs[0], runs[-1]
    return Owner(
        flow_run_id=str(root.id),
        flow_run_name=root.name or "",
        flow_id=str(root.flow_id),
        deployment=str(root.deployment_id or ""),
        subflow_run_id=str(innermost.id) if innermost.id != root.id else "",
        host=host,
        pid=pid,
    )


def _climb(run: FlowRun) -> tuple[FlowRun, ...]:
    """Return the flow runs around a subflow, outermost first, from the Prefect server."""
    found: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        while _has_parent(run) and run.parent_task_run_id is not None:
            parent = client.read_task_run(run.parent_task_run_id).flow_run_id
            if parent is None:
                break
            run = client.read_flow_run(parent)
            found.insert(0, run)
    return tuple(found)


def _has_parent(run: FlowRun | None) -> bool:
    return run is not None and run.parent_task_run_id is not None and run.deployment_id is None


carry(_to_send)
