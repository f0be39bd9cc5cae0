"""A sandbox without isolation, for machines without namespaces: a directory, and processes that begin in it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import signal
import socket
import time
from pathlib import Path

from ags_flows.emulator.reach import Reach
from ags_flows.emulator.sandbox.sandbox import Sandbox
from ags_flows.emulator.sandbox.skeleton import HOME, PATH, build_skeleton
from ags_flows.emulator.sandbox.spec import SandboxSpec
from ags_flows.emulator.sandbox.tree import Tree, copy_tree

END_TIMEOUT = 5.0
MARK = "AGS_FLOWS_SANDBOX"
"""The variable by which processes of a plain sandbox are known."""


class PlainSandbox(Sandbox):
    """A directory. Its files are its own; programs see this machine's files, ports and network, and run as its user.

    Paths of the file interface are those of the directory; a command finds them below its HOME only.
    """

    def __init__(self, spec: SandboxSpec) -> None:
        """Hold the description; nothing runs yet. Use `Sandbox.start`."""
        super().__init__(spec)
        self._ended = asyncio.Event()
        self._mark = f"{MARK}={spec.sandbox_id}-{os.getpid()}-{id(self)}"

    @property
    def alive(self) -> bool:
        """Whether it has not been stopped."""
        return not self._stopped

    @property
    def base_env(self) -> dict[str, str]:
        """The environment of all of its processes, before other variables."""
        name, _, value = self._mark.partition("=")
        return {"PATH": os.environ.get("PATH", PATH), name: value}

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port of this machine; blocking."""
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"port {port}: {error.strerror or error}") from error
        connection.settimeout(None)
        return connection

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on a port of this machine's loopback."""
        return socket.create_server(("127.0.0.1", port))

    def set_network(self, network: Reach) -> None:
        """Do nothing: its processes have the network of this machine."""

    def owner(self, user: str) -> tuple[int, int]:
        """Return the ids that its files have: those of this process."""
        return os.getuid(), os.getgid()

    def name_of(self, number: int) -> str:
        """Return `user` for the only one there is, or the number."""
        return "user" if number in (os.getuid(), os.getgid()) else str(number)

    async def wait_dead(self) -> None:
        """Return when it has been stopped: it never ends otherwise."""
        await self._ended.wait()

    async def stop(self) -> None:
        """End its processes and remove its directory. Idempotent."""
        await super().stop()
        self._ended.set()

    @property
    def _sized(self) -> bool:
        return False

    @property
    def _terminals(self) -> str:
        return "/dev/ptmx"

    @property
    def _source(self) -> Path:
        return self.spec.directory / "root"

    def _place(self, path: str) -> str:
        return posixpath.join(str(self._source), path.lstrip("/"))

    def _enter(self, user: str) -> list[str]:
        if user not in HOME:
            raise KeyError(user)
        return []

    def _start(self) -> None:
        if self.spec.binds:
            raise OSError(errno.EOPNOTSUPP, f"mount {self.spec.binds[0].target}: needs namespaces, which are not here")
        self._source.mkdir(parents=True, exist_ok=True)
        if self.spec.seed is not None:
            copy_tree(self.spec.seed, self._source)
        else:
            build_skeleton(self._source, self.spec.hostname, False)
            if self.spec.image is not None:
                copy_tree(self.spec.image, self._source)
        self.files = Tree(os.open(self._source, os.O_PATH | os.O_DIRECTORY), chown=False)

    def _watch(self) -> None:
        return

    def _end(self) -> None:
        deadline = time.monotonic() + END_TIMEOUT
        quiet = 0
        # A process has no environment for a moment while it executes a program: only two empty looks mean that none is
        # left.
        while quiet < 2 and time.monotonic() < deadline:
            pids = self._pids()
            quiet = 0 if pids else quiet + 1
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _pids(self) -> list[int]:
        mark, found = self._mark.encode(), []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return found
