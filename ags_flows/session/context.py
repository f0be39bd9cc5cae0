"""`sandbox_session()`: a sandbox for the length of a `with` or `async with` block, every step a task run."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.errors import ConfigurationError, InstanceGoneError
from ags_flows.models import CustomConfiguration, Step, Tool, ToolSpec
from ags_flows.models.checks import check_flag, check_tool, choice
from ags_flows.models.durations import check_duration, parse_duration
from ags_flows.models.rules import one_of
from ags_flows.run.awaitable import Call, is_in_event_loop
from ags_flows.run.checked import checked
from ags_flows.run.interruption import Interruption, interruptible
from ags_flows.run.outcome import Ending, enclosing_run, ending_of
from ags_flows.session.asynchronous import AsyncSandboxSession
from ags_flows.session.opening import OnFailure, Opening
from ags_flows.session.session import SandboxSession

OnCrash = Literal["lease", "stop"]


@checked(
    tool=one_of(ToolSpec, Tool, text=check_tool),
    lease=check_duration,
    on_failure=choice("stop", "keep", "pause"),
    on_crash=choice("lease", "stop"),
    delete_tool=check_flag,
)
def sandbox_session(
    tool: ToolSpec | Tool | str | None = None,
    lease: str | None = None,
    metadata: Mapping[str, str] | None = None,
    custom: CustomConfiguration | None = None,
    on_failure: OnFailure = "stop",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    snapshot_id: str | None = None,
    step: str = "",
    steps: list[Step] | None = None,
    config: AGSConfig | str | None = None,
) -> SandboxContext:
    """Yield a running sandbox for the length of a `with` or `async with` block, and end it afterwards.

    While the block is executed, the instance's timeout is kept as a lease: renewed at a quarter of its life by a
    thread of this process. Success, failure, Ctrl-C and cancellation stop the instance. A process that dies stops
    renewing, and AGS ends the sandbox with the lease, unless a retry takes it over before. Where the block calls
    Prefect's `suspend_flow_run`, the sandbox is paused, and goes on with the run after it was resumed.

    In asynchronous code, `async with sandbox_session(...) as sandbox` gives a session whose methods are awaited. A
    coroutine that is cancelled within the block, for example by `asyncio.timeout`, stops the sandbox.

    Args:
        tool: A `ToolSpec` to create, a tool, its name or its id; by default the configuration's `tool_id`.
        lease: `30s` to `24h`, by default the configuration's (`15m`).
        metadata: Your own names and values on the instance.
        custom: What this instance has different from its tool.
        on_failure: What happens to the sandbox when the block raises: `stop`, `keep` (until the lease ends), `pause`.
        on_crash: What happens to it on a SIGTERM that no cancellation sent, such as from a host that goes down: left
            to a retry, and to its `lease`, or `stop`.
        delete_tool: Delete the tool afterwards; by default only one that a `ToolSpec` asks for. The name of such a tool
            ends with a part of the run's id; parallel sessions of the run that ask for an equal one share it, and the
            last one deletes it.
        snapshot_id: Start from this snapshot instead of a tool.
        step: Distinguishes identical sessions in one flow run, where their order may change between attempts.
        steps: A list that the steps are appended to, for a report that also has the end.
        config: Where AGS is: an `AGSConfig`, or the name of a saved block; by default the environment.

    Returns:
        A context manager: `with` gives a `SandboxSession`, `async with` an `AsyncSandboxSession`.

    Example:
        ```python
        @flow
        def nightly():
            with sandbox_session(tool="python-311") as sandbox:
                sandbox.upload("etl.py", "etl.py")
                sandbox.run("python etl.py", check=True)
                sandbox.download("report.csv", "report.csv")
        ```
    """
    leaving = _Leaving()

    @contextmanager
    def hold() -> Iterator[SandboxSession]:
        known = resolve_config(config)
        if snapshot_id and tool is not None:
            raise ConfigurationError("tool and snapshot_id: give one of them.", hint="A snapshot has its tool already.")
        if tool is None and not snapshot_id and not known.tool_id:
            hint = "Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...)."
            raise ConfigurationError("No tool is given.", hint=hint)
        wanted = tool if tool is not None or snapshot_id else known.tool_id
        seconds = parse_duration(lease or known.lease, field="lease")
        deletes = isinstance(wanted, ToolSpec) if delete_tool is None else delete_tool
        opening = Opening(known, [] if steps is None else steps, seconds, metadata or {}, deletes)
        run, interruption = enclosing_run(), None
        ending: Ending = "completed"
        raised: BaseException | None = None
        try:
            with interruptible(opening.interrupt, run) as interruption:
                leaving.interruption = interruption
                yield opening.open(wanted, custom, snapshot_id, step)
        except BaseException as error:
            # Until it is known better: a second signal may come any time.
            raised, ending = error, "crashed"
            if isinstance(error, InstanceGoneError) and (successor := opening.successor()):
                raised, ending = successor, "superseded"
                raise successor from error
            in_coroutine = leaving.in_coroutine
            if interruption is not None:
                ending = interruption.ending_by(error, in_coroutine=in_coroutine)
            else:
                ending = ending_of(error, run, in_coroutine=in_coroutine)
            raise
        finally:
            # Without a retry to wait for, a crash is as good as a cancellation.
            opening.close("cancelled" if ending == "crashed" and on_crash == "stop" else ending, on_failure, raised)

    return SandboxContext(hold(), leaving)


@dataclass(eq=False)
class _Leaving:
    """What the exception that the block is left by does not show, and what ends the block from outside."""

    in_coroutine: bool = False
    interruption: Interruption | None = None


class SandboxContext(AbstractContextManager[SandboxSession], AbstractAsyncContextManager[AsyncSandboxSession]):
    """The context manager of `sandbox_session`. For `async with`, threads enter and leave the synchronous one."""

    def __init__(self, hold: AbstractContextManager[SandboxSession], leaving: _Leaving) -> None:
        self._hold = hold
        self._leaving = leaving
        self._lock = threading.Lock()
        self._session: SandboxSession | None = None
        self._given_up: BaseException | None = None

    def __enter__(self) -> SandboxSession:
        """Start the sandbox."""
        return self._hold.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End the sandbox."""
        self._leaving.in_coroutine = is_in_event_loop()
        return self._hold.__exit__(kind, error, traceback)

    def belong_to_caller(self) -> None:
        """Make the sandbox end with the call that is being executed, whichever call has started it."""
        if self._leaving.interruption is not None:
            self._leaving.interruption.belong_to_caller()

    async def __aenter__(self) -> AsyncSandboxSession:
        """Start the sandbox in a thread."""
        try:
            return AsyncSandboxSession(await Call(self._enter).outcome())
        except CancelledError as error:
            with self._lock:
                # From now on the thread ends what it still starts.
                self._given_up, late = error, self._session
            if late is not None:
                await Call(partial(self._leave, error), must_end=True).outcome()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End the sandbox in a thread."""
        if isinstance(error, GeneratorExit):
            # The event loop is gone: nothing can be awaited.
            return self._leave(error)
        return await Call(partial(self._leave, error), must_end=True).outcome()

    def _enter(self) -> SandboxSession:
        session = self._hold.__enter__()
        with self._lock:
            self._session, given_up = session, self._given_up
        if given_up is not None:
            self._leave(given_up)
        return session

    def _leave(self, error: BaseException | None) -> bool | None:
        self._leaving.in_coroutine = True
        if error is None:
            return self._hold.__exit__(None, None, None)
        return self._hold.__exit__(type(error), error, error.__traceback__)
