"""Processes stopped by signals, where no control group can freeze them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path


class Halt:
    """Stops the processes of one sandbox, and later continues exactly those.

    Args:
        pids: Returns the host's ids of the sandbox's processes.
        rests: Whether a process is stopped already, or has ended.
    """

    def __init__(self, pids: Callable[[], list[int]], rests: Callable[[int], bool]) -> None:
        self._pids = pids
        self._rests = rests
        self._halted: set[int] = set()
        self._guards: list[subprocess.Popen[bytes]] = []

    def halt(self) -> None:
        """Stop the processes that are not stopped yet, and remember them. Blocking."""
        # A process may fork while it is being stopped: repeat until there is no new process.
        for _ in range(10):
            fresh = [pid for pid in self._pids() if pid not in self._halted and not self._rests(pid)]
            if not fresh:
                return
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            self._halted.update(fresh)
            self._guard(fresh)

    def resume(self) -> None:
        """Let them go on; blocking."""
        for pid in self._halted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._halted.clear()
        while self._guards:
            guard = self._guards.pop()
            guard.communicate()

    def _guard(self, halted: list[int]) -> None:
        """Let the processes that wait for halted ones go on with them, also when this process is killed before that.

        nsenter stops itself when its child is stopped, and would stay stopped forever.
        """
        waiting = [str(parent) for parent in map(_parent, halted) if _parent(parent) == os.getpid()]
        if waiting:
            command = ["/bin/sh", "-c", 'read end; kill -s CONT "$@" 2>/dev/null', "sh", *waiting]
            guard = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}
            )
            self._guards.append(guard)


def is_at_rest(pid: int) -> bool:
    """Return True if a process is stopped, or has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "TtZX"
    except (OSError, IndexError):
        return True


def _parent(pid: int) -> int:
    """Return the id of a process's parent, 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
