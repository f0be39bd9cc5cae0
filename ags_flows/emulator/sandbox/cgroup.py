"""A control group for one sandbox, where this process may make one: freezing, limits for memory and processes."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path

FREEZE_TIMEOUT = 2.0
REMOVE_TIMEOUT = 2.0
PREFIX = "ags-flows-"
MOST_PROCESSES = 4096
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
    for each in (group, *_older_groups().values()):
        _sweep(each)
    return group


@functools.cache
def _older_groups() -> dict[str, Path]:
    """Return this process's own groups in hierarchies of version 1, by what they limit, where groups can be made."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup " in line]
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in mounts:
            group = Path(mount[4], path.lstrip("/"))
            if controllers in ("memory", "pids") and controllers in mount[-1].split(",") and os.access(group, os.W_OK):
                found[controllers] = group
    return found


def _sweep(group: Path) -> None:
    """Remove the groups of processes that were killed; the kernel keeps those that are in use."""
    for left in group.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            # Young ones may belong to a process that is not seen from here, and just begins.
            if not Path("/proc", owner).exists() and time.time() - left.stat().st_mtime > YOUNG:
                left.rmdir()


@functools.cache
def limits(controller: str) -> bool:
    """Return True if groups below this process's own can have limits of a kind: `memory` or `pids`."""
    return own_group() is not None and (_delegates(controller) or controller in _older_groups())


@functools.cache
def _delegates(controller: str) -> bool:
    group = own_group()
    if group is None:
        return False
    try:
        if controller not in (group / "cgroup.controllers").read_text().split():
            return False
        if controller not in (group / "cgroup.subtree_control").read_text().split():
            # The kernel refuses this for a group that contains processes, as those of most services do.
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError:
        return False
    return True


def _limit(name: str, controller: str, limit: int, *files: str) -> None:
    """Set a limit of a group: in its unified one when that has such limits, else in one of version 1.

    Args:
        name: The group's name.
        controller: What is limited.
        limit: How much of it.
        files: The file for it in version 2, and that in version 1.
    """
    unified = own_group()
    if unified is not None and _delegates(controller):
        (unified / name / files[0]).write_text(str(limit))
    elif controller in _older_groups():
        group = _older_groups()[controller] / name
        group.mkdir(exist_ok=True)
        (group / files[1]).write_text(str(limit))


class Cgroup:
    """One group.

    Attributes:
        entries: Descriptors; a process that writes `0` to them is in the group from then on.
    """

    def __init__(self, path: Path) -> None:
        """Take over a group that was made; use `make`."""
        self._path = path
        self._paths = [path, *(each for group in _older_groups().values() if (each := group / path.name).is_dir())]
        self.entries = [os.open(each / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for each in self._paths]

    @classmethod
    def make(cls, name: str, memory_bytes: int | None) -> Cgroup | None:
        """Return a new group, None if there are none."""
        parent = own_group()
        if parent is None:
            return None
        path = parent / f"{PREFIX}{os.getpid()}-{name}"
        try:
            path.mkdir()
        except OSError:
            return None
        try:
            _limit(path.name, "pids", MOST_PROCESSES, "pids.max", "pids.max")
            if memory_bytes is not None:
                _limit(path.name, "memory", memory_bytes, "memory.max", "memory.limit_in_bytes")
                with contextlib.suppress(OSError):
                    (path / "memory.swap.max").write_text("0")
            return cls(path)
        except OSError:
            for each in (path, *(group / path.name for group in _older_groups().values())):
                with contextlib.suppress(OSError):
                    each.rmdir()
            return None

    @property
    def path(self) -> Path:
        """Its path."""
        return self._path

    def add(self, *pids: int) -> None:
        """Put processes into it."""
        for entry in self.entries:
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.write(entry, str(pid).encode())

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them go on; return when that is done. Blocking."""
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
        """Return True if a process is in it while it is frozen."""
        try:
            if "frozen 1" not in (self._path / "cgroup.events").read_text().splitlines():
                return False
            return str(pid) in (self._path / "cgroup.procs").read_text().split()
        except OSError:
            return False

    def remove(self) -> None:
        """Remove it, when its processes have ended. Blocking."""
        for entry in self.entries:
            os.close(entry)
        deadline = time.monotonic() + REMOVE_TIMEOUT
        for path in self._paths:
            while path.exists():
                try:
                    path.rmdir()
                except OSError:
                    # The last process is still being cleared away.
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.005)
