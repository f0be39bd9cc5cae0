"""User namespaces for the sandboxes of an emulator that runs as root: their root has no power outside of them."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 10.0
_EVERYBODY = "0 0 4294967295"
_MAPS = ("uid_map", "gid_map")
_WAIT = ("/bin/sh", "-c", "echo ready; read end")


class UserNamespaces(NamedTuple):
    """Two namespaces, by descriptors.

    Each user has the same number inside as outside, so that files keep their owners. What a program inside may do as
    root, it may do only inside. This is also true for a program that this process starts there, and that runs code of
    the sandbox before it has given up its rights, as the loader of programs does.

    Attributes:
        outer: Owns the sandboxes' mounts, so that what is mounted read-only stays so.
        inner: That of their processes.
    """

    outer: int
    inner: int


@functools.cache
def user_namespaces() -> UserNamespaces | None:
    """Return them, None if they cannot be made; made once in this process."""
    with contextlib.ExitStack() as stack:
        try:
            outer = stack.enter_context(_held([]))
            for name in _MAPS:
                Path(f"/proc/{outer}/{name}").write_text(_EVERYBODY)
            enter = ["nsenter", "--user", "--preserve-credentials", "--target", str(outer), "--"]
            inner = stack.enter_context(_held(enter))
            # Only a process of the outer one may map the users of the inner one.
            script = "; ".join(f"printf '{_EVERYBODY}' > /proc/{inner}/{name}" for name in _MAPS)
            subprocess.run([*enter, "/bin/sh", "-ec", script], check=True, capture_output=True, timeout=TIMEOUT)
            return UserNamespaces(_descriptor(outer), _descriptor(inner))
        except (OSError, subprocess.SubprocessError):
            return None


@contextlib.contextmanager
def _held(enter: list[str]) -> Iterator[int]:
    """Yield the id of a process in a new user namespace, which ends with the block."""
    holder = subprocess.Popen(
        [*enter, "unshare", "--user", "--", *_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath},
    )
    with holder:
        try:
            assert holder.stdout is not None
            if not holder.stdout.readline():
                raise OSError("no user namespace")
            yield holder.pid
        finally:
            holder.kill()


def _descriptor(pid: int) -> int:
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
