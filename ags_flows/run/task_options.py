"""How tasks are retried, named and tagged: the options that every task of this package shares."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import exponential_backoff

from ags_flows.cloud.retry import LONGEST_RETRY_AFTER, Backoff, persistently
from ags_flows.errors import AGSFlowsError
from ags_flows.models.rules import Rule
from ags_flows.run.awaitable import awaitable, flag_of_wait
from ags_flows.run.checked import checked
from ags_flows.run.holder import STEP, one_call
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 4
LONGEST_SUBJECT = 60


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return True if a failed attempt is retried. The class of the error decides; what was cancelled is not retried.

    A wait that the response asked for (Retry-After) is waited here, in addition to Prefect's back-off: Prefect takes
    its delays from the task and does not know responses.
    """
    error = state.data
    if not isinstance(error, AGSFlowsError) or not error.retryable or flag_of_wait().is_set():
        return False
    if error.retry_after:
        time.sleep(min(error.retry_after, LONGEST_RETRY_AFTER))
    return True


class SandboxTask(Task[P, R]):
    """A Prefect task of this package: `task(...)` in synchronous code, `await task.aio(...)` in asynchronous code."""

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task in a thread, and wait for its result without blocking the event loop.

        The task run belongs to the run of the caller. For a cancellation see `ags_flows.awaitable`.
        """
        return await awaitable(self)(*args, **kwargs)

    def with_options(self, **options: Any) -> SandboxTask[P, R]:
        """Return the task with other options of Prefect's, such as `retries=0`."""
        changed = super().with_options(**options)
        changed.__class__ = type(self)
        return cast(SandboxTask[P, R], changed)


def sandbox_task(title: str, subject: str, **rules: Rule) -> Callable[[Callable[P, R]], SandboxTask[P, R]]:
    """Return Prefect's `@task` with this package's options. The arguments are checked first: see `checked`.

    Results are never cached or persisted: what happened is looked up where it happened (by ClientToken, metadata and
    journal), since a stored result may name a sandbox that is dead.

    Args:
        title: What the task does, the first part of the names of its runs.
        subject: The parameter that the run is about, the second part: `exec: python etl.py`.
        **rules: Rules of arguments that are of another kind than their names stand for.
    """

    def name_run(parameters: dict[str, Any]) -> str:
        # A value of a secret may also stand in the command itself.
        return f"{title}: {_shorten(parameters.get(subject), _values(parameters.get('secrets')))}"

    def decorate(function: Callable[P, R]) -> SandboxTask[P, R]:
        body = checked(**rules)(function)
        setattr(body, STEP, True)
        return SandboxTask(
            body,
            # Its type is a protocol that no plain function can have.
            task_run_name=cast(Any, name_run),
            tags={"ags"},
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(1),
            retry_jitter_factor=0.5,
            retry_condition_fn=is_retryable,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    return decorate


def as_step(function: Task[P, R]) -> Callable[P, R]:
    """Return a task to call inside of a flow run; outside of one its plain function, repeated as often.

    Prefect would start a whole server for a task run that belongs to no flow.
    """
    if FlowRunContext.get() is not None:
        return function

    @functools.wraps(function.fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with one_call():
            return persistently(lambda: function.fn(*args, **kwargs), Backoff(attempts=RETRIES + 1))

    return call


def _values(secrets: Any) -> list[str]:
    try:
        return list(load_secrets(secrets).values())
    except Exception:
        # Names that are wrong: the step itself raises the error.
        return []


def _shorten(subject: object, secrets: Sequence[str] = ()) -> str:
    """Return a subject as a short text, masked: the name of a tool, the id of an instance, the start of a command."""
    if isinstance(subject, (list, tuple)):
        subject = shlex.join(map(str, subject))
    text = str(getattr(subject, "name", None) or getattr(subject, "id", None) or subject or "all")
    line = Redactor(secrets).text(text.strip()).splitlines()[0] if text.strip() else ""
    return line if len(line) <= LONGEST_SUBJECT else f"{line[: LONGEST_SUBJECT - 3]}..."
