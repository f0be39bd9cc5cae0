"""Waiting for something with a known precision, so that its duration can be recorded and played back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ags_flows.errors import WaitTimeoutError

INTERVAL, SHARE = 0.1, 0.1
"""Seconds between looks at first, and later as a share of the time waited."""

R = TypeVar("R")


def watch(look: Callable[[], R | None], timeout: float, failure: str) -> tuple[R, float]:
    """Look until something is there.

    Args:
        look: Returns it, or None.
        timeout: Seconds to wait.
        failure: What is wrong after that time.

    Returns:
        It, and when the look began that found it, by the monotonic clock.

    Raises:
        WaitTimeoutError: It was not there in time.
    """
    began = time.monotonic()
    while True:
        looked = time.monotonic()
        found = look()
        if found is not None:
            return found, looked
        waited = time.monotonic() - began
        if waited >= timeout:
            raise WaitTimeoutError(f"After {waited:.0f} s {failure}.")
        time.sleep(max(INTERVAL, SHARE * waited))
