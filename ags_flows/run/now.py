"""What functions of Prefect return as a coroutine in the context of an asynchronous flow, for synchronous code."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from prefect.utilities.asyncutils import run_coro_as_sync


def now(returned: Any) -> Any:
    """Return a value as it is, and of a coroutine its result: Prefect's thread for that executes it.

    Args:
        returned: What a function of Prefect has returned, such as `Secret.load(name)`.
    """
    return run_coro_as_sync(returned) if isinstance(returned, Coroutine) else returned
