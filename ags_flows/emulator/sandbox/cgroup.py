"""A control group for one sandbox, where this process may make one: freezing, and a limit for memory."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path

FREEZE_TIMEOUT = 2.0
REMOVE_TIMEOUT = 2.0
PREFIX = "ags-flows-"
YOUNG = 60.0
"""Seconds for which a group may be empty because it has just been made."""


@functools.cache
def own_group() -> Path | None:
    """Return this process's own group in the unified hierarchy, None where groups below it cannot be made."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    paths = [line[3:] for line in groups if line.startswith("0::")]
    if not points or not paths:
        return None
    group = Path(points[0], paths[0].lstrip("/"))
    if not (os.access(group / "cgroup.procs", os.W_OK) and os.access(group, os.W_OK)):
        return None
    _sweep(group)
    return group


def _sweep(group: Path) -> None:
    """Remove the groups of processes that were killed; the kernel keeps those that are in use."""
    for left in group.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            # Young ones may belong to a process that is not seen from here, and just begins.
            if not Path("/proc", owner).exists() and time.time() - left.stat().st_mtime > YOUNG:
                left.rmdir()


@functools.cache
def limits_memory() -> bool:
    """Whether groups below this process's own can have a limit for their memory."""
    group = own_group()
    if group is None:
        return False
    try:
        if "memory" not in (group / "cgroup.controllers").read_text().split():
            return False
        if "memory" not in (group / "cgroup.subtree_control").read_text().split():
            # Refused where the group has processes of its own, as that of most services has.
            (group / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        return False
    return True


class Cgroup:
    """One group.

    Attributes:
        entry: A descriptor; a process that writes `0` to it is in the group from then on.
    """

    def __init__(self, path: Path) -> None:
        """Take over a group that was made; use `make`."""
        self._path = path
        self.entry = os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def make(cls, name: str, memory_bytes: int | None) -> Cgroup | None:
        """Return a new group, None where there are none."""
        parent = own_group()
        if parent is None:
            return None
        path = parent / f"{PREFIX}{os.getpid()}-{name}"
        try:
            path.mkdir()
        except OSError:
            return None
        try:
            if memory_bytes is not None and limits_memory():
                (path / "memory.max").write_text(str(memory_bytes))
                with contextlib.suppress(OSError):
                    (path / "memory.swap.max").write_text("0")
            return cls(path)
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
            return None

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def add(self, *pids: int) -> None:
        """Put processes into it."""
        for pid in pids:
            with contextlib.suppress(OSError):
                os.write(self.entry, str(pid).encode())

    def freeze(self, frozen: bool) -> None:
        """Stop all that is in it, or let it go on; returns when that is so. Blocking."""
        try:
            (self._path / "cgroup.freeze").write_text("1" if frozen else "0")
            deadline = time.monotonic() + FREEZE_TIMEOUT
            while f"frozen {int(frozen)}" not in (self._path / "cgroup.events").read_text().splitlines():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.002)
        except OSError:
            # Without a freezer, signals do it.
            return

    def has_frozen(self, pid: int) -> bool:
        """Whether a process is in it while it is frozen."""
        try:
            if "frozen 1" not in (self._path / "cgroup.events").read_text().splitlines():
                return False
            return str(pid) in (self._path / "cgroup.procs").read_text().split()
        except OSError:
            return False

    def remove(self) -> None:
        """Remove it, when its processes have ended. Blocking."""
        os.close(self.entry)
        deadline = time.monotonic() + REMOVE_TIMEOUT
        while True:
            try:
                self._path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                # The last process is still being cleared away.
                if time.monotonic() > deadline:
                    return
                time.sleep(0.005)
