"""The signals that end a process: which exceptions come from them, and whether the main thread handles one."""

from __future__ import annotations

import signal
import sys
import threading
from asyncio import CancelledError
from types import FrameType
from typing import Any

from prefect.exceptions import TerminationSignal

_COUNTED = KeyboardInterrupt("asyncio has counted a Ctrl-C")


def ends_process(error: BaseException | None) -> bool:
    """Return True if an exception comes from a signal that ends the whole process."""
    return isinstance(error, TerminationSignal) or is_by_ctrl_c(error)


def is_by_sigterm(error: BaseException | None) -> bool:
    """Return True if an exception is that of a SIGTERM, or of a coroutine whose event loop a SIGTERM ends."""
    return _is_caused_by(error, TerminationSignal)


def _is_caused_by(error: BaseException | None, cause: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, cause):
            return True
        error = error.__context__
    return False


def signal_in_main_thread() -> BaseException | None:
    """Return the exception that the main thread handles at present, or that has ended it, if a signal caused it.

    It handles an exception while it leaves a `with` block, such as that of a task runner, which waits for its threads.
    A main thread that an exception has ended waits for the other threads of the process.
    """
    main = threading.main_thread().ident or 0
    handled: Any = sys._current_exceptions().get(main)
    # Before Python 3.12 these are the three values of `sys.exc_info`.
    error: BaseException | None = handled[1] if isinstance(handled, tuple) else handled
    if error is None and _waits_for_threads(sys._current_frames().get(main)):
        error = getattr(sys, "last_value", None)
    if error is None:
        # asyncio only counts a Ctrl-C while a coroutine blocks its event loop.
        return _COUNTED if _is_ctrl_c_counted() else None
    caused = is_by_sigterm(error) or _is_caused_by(error, KeyboardInterrupt) or is_by_ctrl_c(error)
    return error if caused else None


def _waits_for_threads(frame: FrameType | None) -> bool:
    """Return True if the main thread, whose innermost frame is given, has left the program."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) == (threading.__file__, "_shutdown")


def is_by_ctrl_c(error: BaseException | None) -> bool:
    """Return True if an exception is that of a Ctrl-C, or of asyncio's main task, which asyncio cancels after one.

    asyncio does so since Python 3.11. The standard library has no public way to ask for it. Without the attribute, an
    interrupted async flow is treated as crashed: its sandboxes are left to their leases.
    """
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, CancelledError) and _is_ctrl_c_counted())


def _is_ctrl_c_counted() -> bool:
    handler = signal.getsignal(signal.SIGINT)
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return bool(getattr(runner, "_interrupt_count", 0))
