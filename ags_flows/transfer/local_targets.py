"""What stands at a path of this machine, and whether it can be replaced: found before anything is written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from ags_flows.errors import TransferError
from ags_flows.transfer.paths import local_path, shown
from ags_flows.transfer.placement import Kind

MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class LocalTargets:
    """The targets of one transfer.

    Args:
        root: The directory in which all of them are.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._mounts = mount_points()

    def kind_of(self, path: Path, is_directory: bool) -> Kind:
        """Return what stands at a path. A link to a directory inside of the root stands for the directory.

        Args:
            path: The target of an entry.
            is_directory: Whether the entry is a directory.

        Raises:
            TransferError: It must not be replaced.
        """
        try:
            status = path.lstat()
        except FileNotFoundError:
            return "missing"
        if stat.S_ISDIR(status.st_mode):
            return "directory"
        if not (is_directory and stat.S_ISLNK(status.st_mode) and path.is_dir()):
            self._must_be_replaceable(path, status)
            return "other"
        real = os.path.realpath(path)
        if os.path.commonpath([self._root, real]) != self._root:
            # An earlier download may have made it: the sandbox could write anywhere by it.
            raise TransferError(
                f"{shown(path)} is a link to {shown(real)}, outside of the target; nothing was written.",
                hint="Remove the link, or download to the directory that it leads to.",
            )
        return "directory"

    def _must_be_replaceable(self, path: Path, status: os.stat_result) -> None:
        if os.path.join(os.path.realpath(path.parent), path.name) in self._mounts:
            raise TransferError(
                f"{shown(path)} is a mount point, and cannot be replaced; nothing was written.",
                hint="Mount the directory that it is in, give another target, or leave it out with exclude=[...].",
            )
        parent, user = path.parent.stat(), os.geteuid()
        if parent.st_mode & stat.S_ISVTX and user not in (0, parent.st_uid, status.st_uid):
            raise TransferError(
                f"{shown(path)} belongs to another user, in a directory with the sticky bit; nothing was written.",
                hint="Give another target.",
            )


def settled(path: Path) -> Path:
    """Return a path without links in the directories on the way to it.

    A link to a file at the path is replaced. One to a directory stands for it.
    """
    parent, last = (path, "") if os.path.isdir(path) else os.path.split(path)
    return Path(os.path.realpath(parent), last)


def must_stay_in(targets: Iterable[Path], path: Path) -> None:
    """Refuse a path that enters one of some targets and leaves it by a link, which a download to it may have made.

    Raises:
        TransferError: The sandbox would choose what is written to.
    """
    end = settled(local_path(path))
    on_the_way = [os.path.realpath(parent) for parent in Path.cwd().joinpath(path).parents]
    for target in {os.path.realpath(local_path(target)) for target in targets}:
        if any(Path(one).is_relative_to(target) for one in on_the_way) and not end.is_relative_to(target):
            raise TransferError(
                f"{shown(path)} is in {shown(target)}, and leads to {shown(end)} by a link; nothing was written.",
                hint="Remove the link, or give the path that it leads to.",
            )


def must_be_replaceable(path: Path) -> None:
    """Refuse a file that cannot be replaced, before it is fetched.

    Raises:
        TransferError: It is a mount point, or belongs to another user.
    """
    LocalTargets(path.parent).kind_of(path, False)


def mount_points() -> frozenset[str]:
    """Return the mount points of this process, without links. Systems other than Linux have no list of them."""
    try:
        with open(MOUNTS, "rb") as file:
            paths = [line.split(b" ", 5)[4] for line in file]
    except (OSError, IndexError):
        return frozenset()
    return frozenset(os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), path)) for path in paths)
