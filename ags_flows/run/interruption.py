"""Interrupt blocks in pooled threads when their flow run, or the process, is ending.

A signal, and Prefect's time limit of a flow, raise an exception in the main thread only. A task runner that is left by
it waits for its threads, and a session in one of them would wait for its command until the process is killed. So each
session enters `interruptible`, and is interrupted

- immediately, when a block in the main thread ends by a SIGTERM, a Ctrl-C, or a cancellation;
- immediately, when the coroutine that waits for the block's thread is cancelled (`ags_flows.run.awaitable`);
- within two seconds, when the main thread handles the exception of a SIGTERM or a Ctrl-C, wherever it was raised, and
  when the time limit of a flow around the block is over;
- within a few seconds, when the Prefect server reports that its flow run, or one that this is nested in, is being
  cancelled. That is what reaches sessions in processes that get no signal, such as those of a process pool or of Dask.
"""

from __future__ import annotations

import contextvars
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from uuid import UUID

from ags_flows.cloud.forks import ModuleLock, reset_in_children
from ags_flows.run.outcome import Ending, ending_by_signal, ending_of, is_cancelled, is_death, is_timed_out
from ags_flows.run.prefect_contexts import TimeLimit, is_elsewhere, time_limits_of_flows
from ags_flows.run.signals import ends_process, signal_in_main_thread

LOOK_EVERY = 5.0
"""Seconds between two looks at the states of the flow runs."""

TICK = 0.5
"""Seconds between two looks at the main thread.

An exception that is still handled at the second one is taken for the end of the process: most programs that go on after
a Ctrl-C have handled it by then.
"""


_deciding = ModuleLock()
_call: ContextVar[object | None] = ContextVar("ags_flows_awaited_call", default=None)


@dataclass(eq=False)
class Interruption:
    """Whether a block was interrupted.

    Attributes:
        limits: The time limits of the flows around the block.
        call: The call in which the block was opened, of `within_call`. None outside of one.
        ending: How the block has to end, None while it was not interrupted.
    """

    wake: Callable[[], None]
    flow_run_id: UUID | None
    thread: int
    ending: Ending | None = None
    limits: tuple[TimeLimit, ...] = ()
    call: object | None = field(default_factory=_call.get)

    @property
    def is_over(self) -> bool:
        """Whether the time limit of a flow of this process is over."""
        return any(limit.is_over() and not limit.elsewhere for limit in self.limits)

    def ending_by(self, error: BaseException, *, in_coroutine: bool = False) -> Ending:
        """Return how the block ends that is left by this exception, see `ending_of`.

        What an interruption asked for takes precedence: the exception is a consequence. Otherwise the exception may end
        the process, or cancel the flow run: then the blocks of the other threads are interrupted.
        """
        if self.ending is not None:
            return self.ending
        ending = ending_of(error, self.flow_run_id, in_coroutine=in_coroutine)
        if ends_process(error):
            interrupt_other_threads(ending)
        elif ending == "cancelled" and is_death(error) and not in_coroutine and self.flow_run_id is not None:
            interrupt_other_threads(ending, self.flow_run_id)
        return ending

    def belong_to_caller(self) -> None:
        """Make this a block of the call that is being executed, as if that had opened it: what ends it ends the block.

        Outside of calls it belongs to none.
        """
        self.call = _call.get()


class Interruptions:
    """The blocks of this process that can be interrupted.

    Args:
        look_every: Seconds between two looks at the states of the flow runs.
        tick: Seconds between two looks at the main thread.
        is_cancelled: Whether a flow run is being cancelled. An error means that it is unknown.
        is_timed_out: Whether a flow run whose time limit is over had not ended before. An error means the same.
        signal: The exception that the main thread handles, if a signal caused it.
        ending_by_signal: How the blocks of a flow run end because of that exception.
    """

    def __init__(
        self,
        look_every: float = LOOK_EVERY,
        tick: float = TICK,
        is_cancelled: Callable[[UUID], bool] = is_cancelled,
        is_timed_out: Callable[[UUID], bool] = is_timed_out,
        signal: Callable[[], BaseException | None] = signal_in_main_thread,
        ending_by_signal: Callable[[BaseException, UUID | None], Ending] = ending_by_signal,
    ) -> None:
        self._look_every = look_every
        self._tick = tick
        self._is_cancelled = is_cancelled
        self._is_timed_out = is_timed_out
        self._signal = signal
        self._ending_by_signal = ending_by_signal
        self._open: list[Interruption] = []
        self._changed = threading.Condition()
        self._watcher: threading.Thread | None = None
        self._ending_signal: BaseException | None = None

    @contextmanager
    def interruptible(self, wake: Callable[[], None], flow_run_id: UUID | None) -> Iterator[Interruption]:
        """Make a block interruptible. See `interruptible`."""
        block = Interruption(wake, flow_run_id, threading.get_ident(), limits=time_limits_of_flows())
        with self._changed:
            self._open.append(block)
            if self._is_watched(block) and (self._watcher is None or not self._watcher.is_alive()):
                self._watcher = _in_background(self._watch)
        try:
            # Such as the session of a task that is repeated, or that waited for its thread.
            if self._is_watched(block) and (ending := self._ending_at(block)):
                _interrupt([block], ending)
            yield block
        finally:
            with self._changed:
                if block in self._open:
                    self._open.remove(block)
                self._changed.notify_all()

    def interrupt_other_threads(self, ending: Ending, flow_run_id: UUID | None = None) -> None:
        """Interrupt the blocks of all threads but the main one. See `interrupt_other_threads`."""
        if threading.current_thread() is not threading.main_thread():
            return
        main = threading.get_ident()
        with self._changed:
            blocks = [block for block in self._open if block.thread != main]
            blocks = [block for block in blocks if flow_run_id in (None, block.flow_run_id)]
        _interrupt(blocks, ending)

    def interrupt_call(self, call: object, ending: Ending) -> None:
        """Interrupt the blocks that a call opened. See `interrupt_call`."""
        _interrupt(self.opened_by(call), ending)

    def opened_by(self, call: object) -> list[Interruption]:
        """Return the blocks that a call opened, and that are still open."""
        with self._changed:
            return [block for block in self._open if block.call is call]

    def forget(self) -> None:
        """Forget all blocks: after a fork they belong to the parent process, and the watcher does not exist."""
        self._open, self._changed, self._watcher, self._ending_signal = [], threading.Condition(), None, None

    def _ending_at(self, block: Interruption) -> Ending | None:
        """Return how a block has to end that is entered now, None if its run and the process go on."""
        signal = self._ending_signal
        if signal is not None:
            if self._signal() is signal:
                return self._ending_by_signal(signal, block.flow_run_id)
            # The program has gone on.
            self._ending_signal = None
        if block.is_over:
            return "failed"
        # No signal reaches a process of a pool.
        return self._asked()(block) if is_elsewhere() else None

    def _asked(self) -> Callable[[Interruption], Ending | None]:
        """Return a function that asks the Prefect server how a block has to end, about each flow run once."""
        is_cancelled, is_timed_out = (cache(partial(_known, ask)) for ask in (self._is_cancelled, self._is_timed_out))

        def ending(block: Interruption) -> Ending | None:
            if block.flow_run_id is not None and is_cancelled(block.flow_run_id):
                return "cancelled"
            over = [limit for limit in block.limits if limit.elsewhere and limit.is_over()]
            if any(is_timed_out(limit.flow_run_id) for limit in over):
                return "failed"
            # The flow has ended before its time limit.
            ended = [limit for limit in over if is_timed_out(limit.flow_run_id) is False]
            block.limits = tuple(limit for limit in block.limits if limit not in ended)
            return None

        return ending

    def _watch(self) -> None:
        before = self._ending_signal
        asking, next_look = None, time.monotonic() + self._look_every
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._watched(), timeout=min(self._tick, self._look_every))
                if not self._watched():
                    self._watcher = None
                    return
            signal = self._signal()
            with self._changed:
                blocks = self._watched()
                is_new = signal is before and signal is not self._ending_signal
                # Blocks that are opened later look for it when they are entered.
                self._ending_signal = signal if signal is before else None
            if signal is not None and is_new:
                for run in {block.flow_run_id for block in blocks}:
                    _in_background(partial(self._interrupt_by, signal, run, blocks))
            before = signal
            for block in blocks:
                block.limits = tuple(limit for limit in block.limits if not limit.is_void())
            _interrupt([block for block in blocks if block.is_over], "failed")
            if time.monotonic() >= next_look and (asking is None or not asking.is_alive()):
                asking = _in_background(partial(self._interrupt_by_server, blocks))
                next_look = time.monotonic() + self._look_every

    def _interrupt_by(self, signal: BaseException, run: UUID | None, blocks: list[Interruption]) -> None:
        ending = self._ending_by_signal(signal, run)
        _interrupt([block for block in blocks if block.flow_run_id == run], ending)

    def _interrupt_by_server(self, blocks: list[Interruption]) -> None:
        asked = self._asked()
        for block in blocks:
            if ending := asked(block):
                _interrupt([block], ending)

    def _watched(self) -> list[Interruption]:
        return [block for block in self._open if self._is_watched(block) and block.ending is None]

    @staticmethod
    def _is_watched(block: Interruption) -> bool:
        """Return True if no exception of the process's end, or of a cancellation, is raised in the block's thread."""
        return block.thread != threading.main_thread().ident or multiprocessing.parent_process() is not None


def _known(asked: Callable[[UUID], bool], run: UUID) -> bool | None:
    try:
        return asked(run)
    except Exception:  # noqa: BLE001 - whatever keeps the server from responding: the next look asks again
        return None


def _in_background(work: Callable[[], None]) -> threading.Thread:
    """Execute something in a thread: the Prefect server is asked there, which may take seconds to respond."""
    # Prefect's settings, such as the URL of the server, may be those of the caller's context.
    work = partial(contextvars.copy_context().run, work)
    thread = threading.Thread(target=work, name="ags-interruptions", daemon=True)
    thread.start()
    return thread


def _interrupt(blocks: list[Interruption], ending: Ending) -> None:
    for block in blocks:
        with _deciding:
            first = block.ending is None
            block.ending = block.ending or ending
        if first:
            try:
                block.wake()
            except Exception:  # noqa: BLE001 - one block must not keep the others from being interrupted
                logging.getLogger("ags_flows").exception("A block of another thread could not be interrupted.")


_interruptions = Interruptions()


@contextmanager
def interruptible(wake: Callable[[], None], flow_run_id: UUID | None) -> Iterator[Interruption]:
    """Make a block interruptible that waits for something in a sandbox.

    Args:
        wake: Makes the block's thread raise an exception within a second: it sets the flag that its waits look at, and
            that each new step in the block looks at. Called at most once, usually from another thread; it must not
            wait.
        flow_run_id: The flow run around the block, from `enclosing_run`. None: only the process's end interrupts it.

    Yields:
        Whether, and with which ending, the block was interrupted.

    Example:
        ```python
        run = enclosing_run()
        with interruptible(lambda: close_plane(connection, instance.id), run) as interruption:
            try:
                yield session
            except BaseException as error:
                ending = interruption.ending_by(error)
        ```
    """
    with _interruptions.interruptible(wake, flow_run_id) as block:
        yield block


def interrupt_other_threads(ending: Ending, flow_run_id: UUID | None = None) -> None:
    """Interrupt the blocks of all threads but the main one, which is ending. Does nothing in any other thread.

    Args:
        ending: How the blocks have to end.
        flow_run_id: Only blocks of this flow run. Default: the whole process is ending.
    """
    _interruptions.interrupt_other_threads(ending, flow_run_id)


@contextmanager
def within_call(call: object) -> Iterator[None]:
    """Make the blocks that are opened in this block those of a call, which `interrupt_call` interrupts."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


def current_call() -> object | None:
    """Return the call that is being executed, see `within_call`."""
    return _call.get()


def interrupt_call(call: object, ending: Ending) -> None:
    """Interrupt the blocks that a call opened.

    Args:
        call: The argument of `within_call`.
        ending: How the blocks have to end.
    """
    _interruptions.interrupt_call(call, ending)


def is_open(call: object) -> bool:
    """Return True if a block that a call opened is still open, for example a sandbox that is being stopped."""
    return bool(_interruptions.opened_by(call))


reset_in_children(_interruptions.forget)
