"""What a forked child process has to reset: locks that another thread of the parent may have held at the fork."""

from __future__ import annotations

import os
from collections.abc import Callable


def reset_in_children(reset: Callable[[], None]) -> None:
    """Call a function in each forked child process before its other code. Does nothing on systems without fork.

    Args:
        reset: Must not take a lock that another thread may hold. It stays registered as long as the process lives.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
