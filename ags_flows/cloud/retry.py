"""The one way in which a call is repeated inside of this package. Tasks are retried by Prefect on top of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ags_flows.errors import AGSFlowsError

R = TypeVar("R")

LONGEST_RETRY_AFTER = 60.0
"""Seconds of a Retry-After that are respected."""


def is_retryable(error: AGSFlowsError) -> bool:
    """Return True if the error's class allows the call to be repeated."""
    return error.retryable


@dataclass(frozen=True)
class Backoff:
    """How often, and after which pauses, a call is repeated.

    Attributes:
        attempts: The maximum number of calls. None: no limit but `patience`.
        patience: Seconds after the first failure from which on no call is repeated. None: no limit but `attempts`.
        first_pause: Seconds before the second call; doubled before each later one, with up to half as much jitter.
        longest_pause: Seconds, before jitter.
    """

    attempts: int | None = 5
    patience: float | None = None
    first_pause: float = 1.0
    longest_pause: float = 30.0


def persistently(
    action: Callable[[], R],
    backoff: Backoff = Backoff(),
    *,
    repeat: Callable[[AGSFlowsError], bool] = is_retryable,
    on_failure: Callable[[AGSFlowsError], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> R:
    """Call something again while its error allows it. The caller makes sure that a repetition is safe.

    Args:
        action: The call.
        backoff: How often, and with which pauses.
        repeat: Decides by the error; by default its class does.
        on_failure: Called with each error after which the call is repeated.
        sleep: Waits for some seconds. What it raises ends the repetition, such as a cancellation.

    Raises:
        AGSFlowsError: The last error.
    """
    failures, first_failure, pause = 0, 0.0, backoff.first_pause
    while True:
        try:
            return action()
        except AGSFlowsError as error:
            now = time.monotonic()
            failures += 1
            first_failure = first_failure if failures > 1 else now
            exhausted = backoff.attempts is not None and failures >= backoff.attempts
            out_of_time = backoff.patience is not None and now - first_failure > backoff.patience
            if exhausted or out_of_time or not repeat(error):
                raise
            on_failure(error)
            wait = max(pause * random.uniform(1.0, 1.5), min(error.retry_after or 0.0, LONGEST_RETRY_AFTER))
        sleep(wait)
        pause = min(backoff.longest_pause, pause * 2)


def look(find: Callable[[], R | None], times: int, pause: float) -> R | None:
    """Look for something until it is found: what was just created may not be listed yet.

    Args:
        find: One look. None: not found.
        times: The maximum number of looks.
        pause: Seconds between two looks.

    Returns:
        What was found, None where no look found it.
    """
    for number in range(times):
        if number:
            time.sleep(pause)
        if (found := find()) is not None:
            return found
    return None
