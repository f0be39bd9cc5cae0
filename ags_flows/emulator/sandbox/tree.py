"""Host-side access to a sandbox's files that cannot leave the sandbox.

Every path is opened by `openat2` with `RESOLVE_IN_ROOT` on a descriptor of the sandbox's root: absolute links, `..` and
links of links are resolved inside of it. Paths through `/proc/<pid>/root` would follow an absolute link to the host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_ATTRIBUTES = re.compile(r"cp: .*: (Read-only file system|Operation not permitted)")
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class Tree:
    """The files of one sandbox. Paths are absolute inside of it; methods raise OSError. Blocking.

    Args:
        root: A descriptor of the sandbox's root directory; the tree closes it.
        chown: Whether owners can be set.
    """

    def __init__(self, root: int, *, chown: bool) -> None:
        self._root = root
        self._chown = chown
        self.full = False

    def close(self) -> None:
        """Let go of the root."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """Return a descriptor."""
        if self._root < 0:
            raise OSError(errno.ESTALE, "the sandbox has ended")
        if self.full and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        name = os.fsencode(path.lstrip("/") or ".")
        while True:
            descriptor = _libc.syscall(_OPENAT2, self._root, name, ctypes.byref(how), ctypes.sizeof(how))
            if descriptor >= 0:
                return int(descriptor)
            code = ctypes.get_errno()
            # EAGAIN: something was renamed while the path was resolved.
            if code not in (errno.EINTR, errno.EAGAIN):
                raise OSError(code, os.strerror(code), path)

    def lstat(self, path: str) -> os.stat_result:
        """Return what a path is, without following a link at its end."""
        descriptor = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> os.stat_result:
        """Return what a path is, links followed."""
        descriptor = self.open(path, os.O_PATH)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def real_path(self, path: str) -> str:
        """Return the path with all links followed, as seen inside.

        Raises:
            OSError: The link leads nowhere.
        """
        remaining = [part for part in path.split("/") if part]
        resolved = "/"
        links = 0
        while remaining:
            part = remaining.pop(0)
            if part in (".", ""):
                continue
            if part == "..":
                resolved = posixpath.dirname(resolved)
                continue
            step = posixpath.join(resolved, part)
            if stat.S_ISLNK(self.lstat(step).st_mode):
                links += 1
                if links > 40:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                aim = self.readlink(step)
                if aim.startswith("/"):
                    resolved = "/"
                remaining = [part for part in aim.split("/") if part] + remaining
            else:
                resolved = step
        return resolved

    def readlink(self, path: str) -> str:
        """Return the target of a link."""
        descriptor = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink("", dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def make_directories(self, path: str, owner: tuple[int, int]) -> None:
        """Make a directory and its missing parents, 0755, owned by `owner`. One that exists is left as it is."""
        made = ""
        for part in posixpath.normpath(path).split("/"):
            if not part:
                continue
            made = f"{made}/{part}"
            try:
                if stat.S_ISDIR(self.stat(made).st_mode):
                    continue
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), made)
            except FileNotFoundError:
                pass
            with self._parent(made) as (parent, name):
                self._writable(made)
                # Another call may make the same parent between the look and this.
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=parent)
                    self._settle(name, parent, owner)

    def create(self, path: str, owner: tuple[int, int]) -> int:
        """Return a descriptor to write a file; an existing one is emptied and given to `owner` too."""
        descriptor = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            # Nothing that is not needed: watchers of the directory must see the same events as with envd.
            if before.st_size > 0:
                os.ftruncate(descriptor, 0)
            elif before.st_nlink == 1 and before.st_mode & 0o644 != 0o644:
                os.fchmod(descriptor, before.st_mode & 0o777 | 0o644)
            os.fchown(descriptor, *(owner if self._chown else (os.geteuid(), -1)))
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def move(self, source: str, target: str) -> None:
        """Rename; an existing file is replaced."""
        with self._parent(source) as (from_parent, from_name), self._parent(target) as (to_parent, to_name):
            self._writable(target)
            os.rename(from_name, to_name, src_dir_fd=from_parent, dst_dir_fd=to_parent)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all that is in it; nothing there is a success."""
        try:
            with self._parent(path) as (parent, name):
                self._remove_at(parent, name)
        except FileNotFoundError:
            return

    def give(self, path: str, owner: tuple[int, int]) -> None:
        """Change the owner of a path itself, not of what a link leads to."""
        with self._parent(path) as (parent, name):
            self._give(name, parent, owner)

    def _remove_at(self, parent: int, name: str) -> None:
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                return
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            for child in os.listdir(directory):
                self._remove_at(directory, child)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=parent)

    def _give(self, name: str, parent: int, owner: tuple[int, int]) -> None:
        if self._chown:
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)

    def _settle(self, name: str, parent: int, owner: tuple[int, int]) -> None:
        """Give a new directory its mode and owner: by a descriptor, since a program inside may put a link there."""
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fchmod(directory, 0o755)
            if self._chown:
                os.fchown(directory, *owner)
        finally:
            os.close(directory)

    def _writable(self, path: str) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield a descriptor of the directory that holds a path, and the path's last name."""
        directory, name = posixpath.split(posixpath.normpath("/" + path.lstrip("/")))
        if not name:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        descriptor = self.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)


def copy_tree(source: Path, target: Path) -> None:
    """Copy one file system with owners, links and modes, without what is mounted in it.

    Mount points of the target must not be changed, and only their attributes would be copied: that failure is
    ignored.
    """
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["cp", "-a", "--one-file-system", f"{source}/.", f"{target}/"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    problems = [line for line in done.stderr.splitlines() if not _ATTRIBUTES.fullmatch(line)]
    if done.returncode != 0 and problems:
        raise OSError(errno.EIO, f"copy of {source}: {problems[-1]}")
