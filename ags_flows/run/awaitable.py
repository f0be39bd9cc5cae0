"""Synchronous functions for asynchronous callers: a thread executes the function, and a coroutine waits for it.

There is one implementation of everything, the synchronous one. Each call gets a dedicated thread, since waits are long
and the event loop's pool of threads is small.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from anyio import CancelScope

from ags_flows.cloud.data_planes import Cancellation
from ags_flows.run.interruption import (
    Interruption,
    interrupt_call,
    interrupt_other_threads,
    interruptible,
    is_open,
    within_call,
)
from ags_flows.run.outcome import ending_of
from ags_flows.run.signals import is_by_sigterm

P = ParamSpec("P")
R = TypeVar("R")

WAIT_ENDS_WITHIN = 0.9
"""Seconds that a cancelled coroutine waits for its thread, if the thread has no sandbox to stop."""

CLEAN_UP_WITHIN = 20.0
"""Seconds that a cancelled coroutine waits while its thread stops a sandbox: Prefect kills the process after 30."""


def awaitable(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    r"""Return a coroutine function that calls a synchronous function in a thread.

    It works for everything of this package, and for your functions that use it: tasks, flows, functions with
    sessions. What the function does belongs to the run of the caller, as if it had been called there.

    If the coroutine is cancelled, the waits of the function end within a second: the command that it waits for is
    killed, and the sandboxes of sessions that it opened are stopped. After a SIGTERM that no cancellation sent,
    commands and sandboxes are left to a retry of the run.

    Args:
        function: The synchronous function.

    Example:
        ```python
        import asyncio

        from ags_flows import awaitable, sandbox_session


        def measure(name: str) -> str:
            with sandbox_session("base", step=name) as sandbox:
                return sandbox.run(f"echo {name}").stdout


        async def all_of_them() -> list[str]:
            return await asyncio.gather(*(awaitable(measure)(name) for name in ("pears", "plums")))


        assert asyncio.run(all_of_them()) == ["pears\n", "plums\n"]
        ```
    """

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return await Call(partial(function, *args, **kwargs)).outcome()

    return call


def is_in_event_loop() -> bool:
    """Return True if the caller is executed by an event loop of this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_ends: ContextVar[tuple[Cancellation, ...]] = ContextVar("ags_flows_ends_of_waits", default=())


@contextmanager
def waits_end_with(flag: Cancellation) -> Iterator[None]:
    """End the waits of this block when a flag is set, also the waits that begin after it was set."""
    token = _ends.set((*_ends.get(), flag))
    try:
        yield
    finally:
        _ends.reset(token)


def flag_of_wait(*flags: Cancellation) -> Cancellation:
    """Return the flag of a wait: set with the given ones, and with those of `waits_end_with` around this call.

    They are set when the coroutine that waits for it is cancelled, and when the session that it belongs to is
    interrupted.
    """
    return Cancellation(*flags, *_ends.get())


class Call(Generic[R]):
    """One call of a synchronous function, in a thread.

    Args:
        work: The function.
        must_end: Whether a cancelled coroutine waits for the end of the function, as of one that stops a sandbox.

    Attributes:
        cancelled: Ends the waits of the function.
    """

    def __init__(self, work: Callable[[], R], *, must_end: bool = False) -> None:
        self.cancelled = Cancellation()
        self._work = work
        self._must_end = must_end
        self._block: Interruption | None = None

    async def outcome(self) -> R:
        """Execute the function, and return its result or raise its exception."""
        future: asyncio.Future[R] = self._start(self._execute)
        try:
            # The thread goes on when the coroutine is cancelled, until it notices.
            with CancelScope(shield=self._must_end):
                await asyncio.shield(future)
            return future.result()
        except CancelledError as error:
            if not future.done():
                await self._end(error, future)
            raise

    def _start(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Execute something in a thread, in the context of the caller."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        # Read the exception of an abandoned call: asyncio logs those that are never read.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

        def settle(result: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)

        def execute() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except StopIteration as stop:
                error = RuntimeError(f"{work!r} raised {stop!r}")
            except BaseException as raised:  # noqa: BLE001 - the coroutine raises it
                error = raised
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                # The event loop was closed in the meantime: the call was abandoned.
                pass

        threading.Thread(target=copy_context().run, args=(execute,), name="ags-call").start()
        return future

    def _execute(self) -> R:
        with interruptible(self._wake, None) as self._block, within_call(self), waits_end_with(self.cancelled):
            return self._work()

    def _wake(self) -> None:
        # A command that is left to a retry must not be killed: its wait ends by the usual error.
        kills = self._block is None or self._block.ending != "crashed"
        self.cancelled.end(CancelledError("The coroutine that waited for this was cancelled.") if kills else None)

    async def _end(self, error: CancelledError, future: asyncio.Future[R]) -> None:
        """End the call of a coroutine that was cancelled."""
        # Within a scope of anyio that is cancelled, as by a time limit of Prefect's, each `await` would be cancelled.
        with CancelScope(shield=True):
            if not self._must_end:
                self._start(partial(self._interrupt, error, asyncio.get_running_loop()))
                await asyncio.wait([future], timeout=WAIT_ENDS_WITHIN)
            if self._must_end or is_open(self):
                await asyncio.wait([future], timeout=CLEAN_UP_WITHIN)

    def _interrupt(self, error: CancelledError, loop: asyncio.AbstractEventLoop) -> None:
        # The Prefect server may be asked for the ending, and may not respond.
        ending = ending_of(error, in_coroutine=True)
        if is_by_sigterm(error):
            loop.call_soon_threadsafe(interrupt_other_threads, ending)
        if self._block is not None and self._block.ending is None:
            self._block.ending = ending
            self._wake()
        interrupt_call(self, ending)
