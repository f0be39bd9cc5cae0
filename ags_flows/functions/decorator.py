"""`@in_sandbox`: a Python function whose calls run in sandboxes."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    ConfigurationError,
    FunctionError,
    InstanceFailedError,
    InstanceGoneError,
    NotFoundError,
    OutcomeUnknownError,
    OutputTooLargeError,
    TransferError,
    UnsupportedError,
    WaitCancelledError,
    WaitTimeoutError,
)
from ags_flows.functions.call import Call, FunctionOptions, RemoteFunction, install_packages, perform
from ags_flows.functions.packages import check_packages, packages_key, snapshot_name
from ags_flows.functions.pool import Kind, Pool, Setup, Warm
from ags_flows.functions.pools import pool_of
from ags_flows.lifecycle.image_tool import image_tool
from ags_flows.models import Instance, ToolSpec
from ags_flows.models.checks import check_count, check_seconds
from ags_flows.ownership import Step, fingerprint
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.holder import STEP, identify
from ags_flows.run.interruption import interruptible
from ags_flows.run.outcome import enclosing_run
from ags_flows.run.secrets import load_secrets
from ags_flows.run.task_options import is_retryable
from ags_flows.tasks import ensure_tool

P = ParamSpec("P")
R = TypeVar("R")

REMOTE = "__ags_function__"
"""Attribute of the function of a task that `in_sandbox` made: its `RemoteFunction`."""

_LOST = (InstanceGoneError, InstanceFailedError, WaitTimeoutError)
_OF_THE_CALL = (
    FunctionError,
    CommandTimeoutError,
    OutputTooLargeError,
    ConfigurationError,
    TransferError,
    NotFoundError,
    UnsupportedError,
)
"""Errors that are independent of the sandbox: other calls can use it."""


@overload
def in_sandbox(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def in_sandbox(
    *,
    image: str | None = None,
    tool: ToolSpec | str | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    packages: Sequence[str] = (),
    include: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    timeout: float | None = None,
    retries: int = 2,
    retries_of_failed: int = 0,
    sandboxes: int = 10,
    idle: float = 30.0,
    files: str = ".",
    config: AGSConfig | str | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def in_sandbox(
    function: Callable[P, R] | None = None,
    /,
    *,
    image: str | None = None,
    tool: ToolSpec | str | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    packages: Sequence[str] = (),
    include: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    timeout: float | None = None,
    retries: int = 2,
    retries_of_failed: int = 0,
    sandboxes: int = 10,
    idle: float = 30.0,
    files: str = ".",
    config: AGSConfig | str | None = None,
) -> Any:
    """Make a Prefect task of a function that runs in a sandbox.

    The source of the function is sent: it imports what it needs inside, and uses no names of the code around it. The
    sandbox needs Python 3.8 or later, and neither Prefect nor this package. Arguments and results cross as JSON.

    Calls of one run share sandboxes: a call takes an idle one, or a new one is started, up to `sandboxes`. An idle
    sandbox is stopped after `idle` seconds, and at the end of the run. After a crash, a retry of the run finds the
    calls that are running or that have succeeded, and runs none of them again in a live sandbox.

    Args:
        function: The function, where the decorator has no arguments.
        image: Image with Python. The tool for it is made once and stays: its name begins with `fn-`.
        tool: Instead of an image, an existing tool's name or id, or a `ToolSpec`. Default: the configuration's.
        cpu: Cores, such as `2` or `500m`; with `image`.
        memory: Such as `4Gi`; with `image`.
        packages: Requirements that pip installs before the first call, such as `pandas==2.2.3`. A snapshot keeps them
            for later sandboxes.
        include: Local code that the function imports: paths relative to its file, or names of packages.
        env: Environment.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block. Their values are masked in
            the log, in results and in errors.
        timeout: Seconds for one call, then it is killed. None: no limit.
        retries: How often a call is repeated after a failure of the sandbox or the cloud.
        retries_of_failed: How often a call is repeated after an exception of the function, or its time limit.
        sandboxes: The most sandboxes that run concurrently for the calls of one run.
        idle: Seconds without a call after which a sandbox is stopped.
        files: Directory on this machine for files that the function returns as `SandboxFile`.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The task. `submit`, `map` and `with_options` are those of Prefect.

    Raises:
        ConfigurationError: The function cannot be sent, or an option breaks a rule. A call raises it for an argument
            that is not JSON, with its path.

    Example:
        ```python
        @in_sandbox(image="python:3.11")
        def mean(numbers: list[float]) -> float:
            import statistics

            return statistics.mean(numbers)


        @flow
        def nightly():
            return mean.map([[1.0, 2.0], [3.0, 5.0]]).result()
        ```
    """
    options = FunctionOptions(
        check_packages(packages), tuple(include), dict(env or {}), dict(secrets or {}), timeout, files
    )
    check_count(sandboxes, "sandboxes", least=1)
    check_count(retries, "retries")
    check_count(retries_of_failed, "retries_of_failed")
    check_seconds(idle, "idle")
    if image is not None and tool is not None:
        raise ConfigurationError("image and tool: give one of them.", hint="A tool has its image already.")
    if image is None and (cpu is not None or memory is not None):
        raise ConfigurationError("cpu and memory: they need image=...", hint="A tool has its resources already.")
    origin = image_tool("fn", image, cpu, memory) if image is not None else tool or ""
    place = partial(_Place, origin, sandboxes, idle, config)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        remote = RemoteFunction.of(function, options)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast(R, place(remote).call(Call.of(remote, args, kwargs)))

        setattr(call, STEP, True)
        setattr(call, REMOTE, remote)
        # No tags: Prefect asks its server for a concurrency limit of each tag, at each call.
        return task(
            retries=max(retries, retries_of_failed),
            retry_delay_seconds=exponential_backoff(1),
            retry_jitter_factor=0.5,
            retry_condition_fn=_is_repeated(retries, retries_of_failed),
            cache_policy=NO_CACHE,
        )(call)

    return decorate if function is None else decorate(function)


def remote_function(function: Callable[..., Any]) -> RemoteFunction:
    """Return the function of a task that `in_sandbox` made, or a plain function, as one that runs in a sandbox.

    Raises:
        ConfigurationError: It cannot run in a sandbox.
    """
    inner = function.fn if isinstance(function, Task) else function
    known = getattr(inner, REMOTE, None)
    return known if isinstance(known, RemoteFunction) else RemoteFunction.of(inner)


def is_remote(function: Callable[..., Any]) -> bool:
    """Return True if `in_sandbox` made the task."""
    return isinstance(function, Task) and hasattr(function.fn, REMOTE)


class _Place:
    """Where the calls of one function run.

    Args:
        origin: The tool, or its spec.
        sandboxes: The most that run concurrently.
        idle: Seconds without a call after which a sandbox is stopped.
        config: Where AGS is.
        remote: The function.
    """

    def __init__(
        self,
        origin: ToolSpec | str,
        sandboxes: int,
        idle: float,
        config: AGSConfig | str | None,
        remote: RemoteFunction,
    ) -> None:
        self._config = resolve_config(config)
        self._origin = origin or self._config.tool_id
        self._sandboxes = sandboxes
        self._idle = idle
        self._remote = remote

    def call(self, call: Call) -> Any:
        """Call the function in a sandbox of the run, and return its result."""
        options = self._remote.options
        load_secrets(options.secrets)
        step = identify("call_function", call.does())
        pool = self._pool()
        run = enclosing_run()
        used: list[Warm] = []
        # Set if only this call is cancelled: the coroutine that waits for it. Others use the pool.
        cancelled = flag_of_wait()

        def wake() -> None:
            for warm in used:
                warm.leased.wake()

        def is_ended() -> bool:
            return interruption.ending is not None or cancelled.is_set()

        with interruptible(wake, run) as interruption:
            try:
                warm = pool.take(step.family, is_ended)
                used.append(warm)
                if is_ended():
                    raise WaitCancelledError(f"{self._remote.name}: the call was ended before it began.")
                if call.included.key not in warm.included:
                    call.included.upload(warm.leased.plane.plane)
                    warm.included.add(call.included.key)
                value = perform(call, warm.leased.instance, step, self._config)
            except BaseException as error:
                if cancelled.is_set():
                    for warm in used:
                        pool.discard(warm)
                    if error is cancelled.reason:
                        raise
                    # The error is a consequence, and must not be retried.
                    raise cancelled.reason or WaitCancelledError(
                        f"{self._remote.name}: the coroutine that waited for the call was cancelled."
                    ) from error
                ending = interruption.ending_by(error)
                if ending in ("failed", "superseded"):
                    self._after_failure(pool, used, step, error)
                else:
                    pool.end(ending)
                if interruption.ending is None:
                    raise
                # The error is a consequence, and must not be retried.
                raise WaitCancelledError(
                    f"{self._remote.name}: the run is ending ({ending}); the call was ended with it."
                ) from error
        pool.give_back(warm)
        return value

    def _pool(self) -> Pool:
        remote, packages, origin = self._remote, self._remote.options.packages, self._origin
        if not origin:
            raise ConfigurationError(
                f"{remote.name}: no image and no tool is given.",
                hint="Write in_sandbox(image=...), or AGSConfig(tool_id=...).",
            )
        name = origin if isinstance(origin, str) else origin.name
        snapshot = snapshot_name(name, packages) if packages else ""
        options = remote.options
        environment = fingerprint([dict(options.env), dict(options.secrets)]) if packages else ""
        kind = Kind(name, packages_key(packages), environment, snapshot, self._sandboxes, self._idle)

        def find_tool() -> str:
            return origin if isinstance(origin, str) else ensure_tool.fn(origin, replace=False, config=self._config).id

        def prepare(instance: Instance) -> bool:
            return install_packages(remote, instance, self._config)

        return pool_of(kind, self._config, enclosing_run(), Setup(find_tool, prepare))

    def _after_failure(self, pool: Pool, used: list[Warm], step: Step, error: BaseException) -> None:
        for warm in used:
            # A time limit of Prefect's may come before the response to the start: the function may be running then.
            if isinstance(error, (*_LOST, WaitCancelledError, OutcomeUnknownError, CancelledError, TimeoutError)):
                pool.discard(warm)
                continue
            if not isinstance(error, _OF_THE_CALL):
                # The call may be running: its retry goes where its journal is.
                pool.remember(warm, step.family)
            pool.give_back(warm)


def _is_repeated(retries: int, retries_of_failed: int) -> Callable[[Task[..., Any], TaskRun, State[Any]], bool]:
    """Return the rule by which failed calls are repeated; before version 3.9, Prefect takes only a plain function."""

    def is_repeated(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        # The class of the error decides, and how often the call was tried.
        error = state.data
        # Other retries are those of `with_options`.
        most = retries if task.retries in (None, max(retries, retries_of_failed)) else task.retries
        if isinstance(error, (FunctionError, CommandTimeoutError)):
            return run.run_count <= retries_of_failed
        if run.run_count > most or isinstance(error, WaitCancelledError):
            return False
        return is_retryable(task, run, state) or (isinstance(error, AGSFlowsError) and isinstance(error, _LOST))

    return is_repeated
