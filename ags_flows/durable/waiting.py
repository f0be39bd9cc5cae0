"""Waits for a sandbox that may not respond for a while, and that are cancelled when it is stopped."""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import TypeVar

from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    InstanceGoneError,
    InvalidRequestError,
    UnsupportedError,
)

PATIENCE = 120.0
"""Seconds after which the wait for a command in an unreachable sandbox fails. The command itself continues."""

INTERRUPTIONS = (KeyboardInterrupt, GeneratorExit, CancelledError, TimeoutError)
"""Errors in the waiting thread that kill a command. A timeout of a Prefect task or flow raises one of the last two."""

Response = TypeVar("Response")
Repeat = Callable[[AGSFlowsError], bool]
"""Decides by an error whether a request is repeated."""


def may_pass(error: AGSFlowsError) -> bool:
    """Return True if the same request may succeed a little later."""
    return error.retryable or isinstance(error, CommandTimeoutError)


def may_be_wrong(error: AGSFlowsError) -> bool:
    """Return True if a gateway may have responded in the place of a sandbox that has accepted such requests before.

    Where something was not found, a script in the sandbox is asked instead.
    """
    return may_pass(error) or isinstance(error, (InvalidRequestError, UnsupportedError))


class Waiting:
    """The waits of one command.

    Args:
        instance_id: The sandbox.
        on_note: Called with a sentence for the log.
        cancelled: If this event is set, a wait ends within a second. Its attribute `reason`, if any, is raised.
    """

    def __init__(self, instance_id: str, on_note: Callable[[str], None], cancelled: threading.Event) -> None:
        self._instance_id = instance_id
        self._on_note = on_note
        self._cancelled = cancelled

    def patiently(self, action: Callable[[], Response], repeat: Repeat = may_pass) -> Response:
        """Repeat an idempotent action until the sandbox responds, for at most `PATIENCE` seconds."""
        lost: list[float] = []

        def on_failure(error: AGSFlowsError) -> None:
            if not lost:
                lost.append(time.monotonic())
                self._on_note(f"The sandbox does not respond; retrying. {error}")

        response = persistently(
            action,
            Backoff(attempts=None, patience=PATIENCE, first_pause=0.5, longest_pause=10.0),
            repeat=repeat,
            on_failure=on_failure,
            sleep=self.pause,
        )
        if lost:
            self._on_note(f"The sandbox responds again after {time.monotonic() - lost[0]:.0f} s.")
        return response

    def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the wait is cancelled."""
        self._cancelled.wait(seconds)
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raise the reason why the wait was cancelled, if it was."""
        if self._cancelled.is_set():
            raise getattr(self._cancelled, "reason", None) or InstanceGoneError(
                f"The wait for the command in {self._instance_id} was cancelled: the sandbox is being stopped."
            )
