"""A command that runs in a sandbox while the caller does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ags_flows.run.checked import checked


class BackgroundCommand:
    """A running command. It belongs to the sandbox: it goes on when this process ends, and ends with the sandbox."""

    def __init__(self, follow: Callable[[], Any], kill: Callable[[], None], command: str) -> None:
        """Follow it in a thread by `follow`, which returns its outcome. `kill` ends it."""
        self.command = command
        self._follow = follow
        self._kill = kill
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._wait_for_it, name="ags-background-command", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, and all of its output has arrived."""
        return not self._thread.is_alive()

    @checked()
    def wait(self, timeout: float | None = None) -> Any:
        """Wait for its end and return its outcome, an `e2b.CommandResult`.

        Args:
            timeout: Seconds; the command goes on when they are over.

        Raises:
            CommandExitException: Of e2b, for an exit code other than 0.
            TimeoutError: It has not ended in time.
        """
        self._thread.join(timeout)
        if not self.done:
            raise TimeoutError(f"The command is still running after {timeout:g} s: {self.command}")
        if self._error is not None:
            raise self._error
        return self._outcome

    def kill(self) -> None:
        """End the command and everything that it started."""
        self._kill()

    def _wait_for_it(self) -> None:
        try:
            self._outcome = self._follow()
        except BaseException as error:  # noqa: BLE001 - `wait` raises it
            self._error = error
