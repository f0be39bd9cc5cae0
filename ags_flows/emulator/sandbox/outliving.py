"""Sandboxes that outlive their emulator, and the warden that ends them when no other emulator takes them over.

With a state directory, each sandbox has a note on the host with the ids of its processes. An emulator that starts on
the same directory adopts those that still run. The warden is a separate process. When its emulator has gone, it ends
each sandbox at its timeout, and immediately those without one. It runs as a script that imports only the
standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NOTE = "life.json"
END_TIMEOUT = 15.0
_TICK = 0.5
_MARK = "AGS_FLOWS_SANDBOX"
_NOTHING_LEFT = b"nothing"


class Elder:
    """A process that this one did not start, with what is needed of `subprocess.Popen`."""

    stderr = None

    def __init__(self, pid: int) -> None:
        """Hold on to a process.

        Raises:
            OSError: It is not there.
        """
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._ended = False

    def poll(self) -> int | None:
        """Return 0 when it has ended, else None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """Wait for its end; how it ended is not known.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        if not self._ended:
            waiting = select.poll()
            waiting.register(self._handle, select.POLLIN)
            if not waiting.poll(timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self._ended = True
            os.close(self._handle)
        return 0

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            if not self._ended:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)


@dataclass(frozen=True)
class Life:
    """The processes of one sandbox, and the emulator that keeps it.

    Attributes:
        keeper: The emulator that keeps it.
        init: The host's id of the first process inside.
        init_start: When that began, in clock ticks since the machine did.
        bwrap: The id of the bubblewrap that waits for it.
        bwrap_start: When that began.
        cgroup: Its control group.
        proxy: The port inside of its way out.
    """

    keeper: str
    init: int
    init_start: int
    bwrap: int
    bwrap_start: int
    cgroup: str | None = None
    proxy: int | None = None

    @classmethod
    def read(cls, directory: Path) -> Life | None:
        """Return what is noted in a sandbox's directory, None when nothing is."""
        try:
            return cls(**json.loads((directory / NOTE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Note it."""
        draft = directory / f".{NOTE}"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(directory / NOTE)

    @property
    def lasts(self) -> bool:
        """Whether the sandbox is still there: numbers of processes are used again, their starts are not."""
        return began(self.init) == self.init_start and began(self.bwrap) == self.bwrap_start

    def end(self) -> None:
        """End the sandbox and wait for that; harmless when it has ended."""
        for pid, start in ((self.init, self.init_start), (self.bwrap, self.bwrap_start)):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                elder = Elder(pid)
                # Only now is it certain which process the handle is of.
                if began(pid) == start:
                    elder.kill()
                    elder.wait(END_TIMEOUT)
        if self.cgroup is not None:
            with contextlib.suppress(OSError):
                Path(self.cgroup).rmdir()


def began(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine did; None when it is not there or has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


class Warden:
    """The process that looks after a state directory when this one has gone."""

    def __init__(self, directory: Path, keeper: str) -> None:
        """Start it; it begins its work when its input ends."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(directory), keeper],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self, left: bool) -> None:
        """Report that this process ends normally, and whether it leaves sandboxes running."""
        assert self._process.stdin is not None
        if left:
            self._process.stdin.close()
        else:
            self._process.communicate(_NOTHING_LEFT)


def mark(keeper: str, sandbox_id: str) -> dict[str, str]:
    """Return the environment by which the warden finds a sandbox that was begun, but not noted any more."""
    return {_MARK: f"{keeper}/{sandbox_id}"}


def deadlines(directory: Path) -> dict[str, float]:
    """Return until when the sandboxes in a state directory may run without an emulator, by the machine's clock."""
    offset = sum(float(each.get("offset", 0.0)) for each in _documents(directory / "records" / "account"))
    return {
        str(each.get("instance_id")): float(each["expires_at"]) - offset
        for each in _documents(directory / "records" / "instances")
        if each.get("status") == "RUNNING" and each.get("expires_at") is not None
    }


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("*.json") if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text(encoding="utf-8"))


def _guard(directory: Path, keeper: str) -> None:
    """End what a dead emulator left, each at its time, until nothing is left or others have it."""
    machines, due = directory / "machines", deadlines(directory)
    left = {path.parent: Life.read(path.parent) for path in machines.glob(f"*/{NOTE}")}
    mine = {path: life for path, life in left.items() if life is not None and life.keeper == keeper}
    # One that was just being made may make another process while the first is looked for.
    looks = 3
    while mine or looks:
        if looks:
            looks -= 1
            _end_unnoted(machines, keeper)
        for path, life in list(mine.items()):
            now = Life.read(path)
            if now is not None and now.keeper != keeper:
                del mine[path]
            elif not life.lasts or now is None or due.get(path.name, 0.0) <= time.time():
                # Also if the state directory was removed.
                life.end()
                del mine[path]
        time.sleep(_TICK)


def _end_unnoted(machines: Path, keeper: str) -> None:
    wanted = f"{_MARK}={keeper}/".encode()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            sandbox = next((each.removeprefix(wanted).decode() for each in given if each.startswith(wanted)), None)
            if sandbox is not None and Life.read(machines / sandbox) is None:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if sys.stdin.buffer.read() != _NOTHING_LEFT:
        _guard(Path(sys.argv[1]), sys.argv[2])
