"""What a forked child process has to reset: locks that another thread of the parent may have held at the fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType


def reset_in_children(reset: Callable[[], None]) -> None:
    """Call a function in each forked child process before its other code. Does nothing on systems without fork.

    Args:
        reset: Must not take a lock that another thread may hold. It stays registered as long as the process lives.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


class ModuleLock:
    """A reentrant lock of a module. A forked child process finds it free: no thread that held it exists there."""

    def __init__(self) -> None:
        self._renew()
        reset_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock."""
        self._lock.release()
