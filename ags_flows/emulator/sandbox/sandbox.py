"""One sandbox: what all kinds of it can do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ags_flows.emulator.reach import Reach
from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.sandbox.egress import Egress
from ags_flows.emulator.sandbox.halting import Halt, is_at_rest
from ags_flows.emulator.sandbox.host_ports import HostPorts
from ags_flows.emulator.sandbox.isolation import isolation
from ags_flows.emulator.sandbox.leftover import Leftover
from ags_flows.emulator.sandbox.process import Process, spawn
from ags_flows.emulator.sandbox.skeleton import HOME, UID
from ags_flows.emulator.sandbox.spec import SandboxSpec, Usage
from ags_flows.emulator.sandbox.tree import Tree, copy_tree

IDENTITY = "/run/e2b"
"""The directory with files from which programs read the sandbox's id."""

FILLER = "/.full"
"""The file that takes all the room of a disk that is made full."""


class Sandbox(ABC):
    """A sandbox of this machine, as well isolated as it can be.

    Attributes:
        spec: Its description.
        files: Its files, seen from the host.
    """

    files: Tree

    def __init__(self, spec: SandboxSpec) -> None:
        """Hold the description; nothing runs yet. Use `start`."""
        self.spec = spec
        self._stopped = False
        self._egress: Egress | None = None
        self._host_ports: HostPorts | None = None
        self._leftover: Leftover | None = None
        self._halt = Halt(self._pids, self._rests)
        self._cpu: tuple[float, float] = (time.monotonic(), 0.0)

    @classmethod
    async def start(cls, spec: SandboxSpec) -> Sandbox:
        """Start a sandbox: in namespaces where this machine has them, else in a plain directory.

        Raises:
            OSError: It could not be made.
        """
        from ags_flows.emulator.sandbox.namespace import NamespaceSandbox
        from ags_flows.emulator.sandbox.plain import PlainSandbox

        kind = cls
        if cls is Sandbox:
            kind = NamespaceSandbox if isolation().bwrap is not None else PlainSandbox
        sandbox = kind(spec)
        try:
            await asyncio.to_thread(sandbox._start)
            await asyncio.to_thread(sandbox._introduce)
            sandbox._watch()
            sandbox.set_network(spec.network)
        except BaseException:
            await sandbox.stop()
            raise
        return sandbox

    @classmethod
    async def adopt(cls, spec: SandboxSpec) -> Sandbox:
        """Go on with a sandbox that an emulator before this one left in the same directory.

        Raises:
            OSError: It is not there any more.
        """
        from ags_flows.emulator.sandbox.namespace import NamespaceSandbox

        sandbox = NamespaceSandbox(spec)
        await asyncio.to_thread(sandbox.take_over)
        try:
            sandbox._watch()
            sandbox._leftover = Leftover(await asyncio.to_thread(sandbox._pids))
            sandbox.set_network(spec.network)
        except BaseException:
            await sandbox.stop()
            raise
        return sandbox

    # What the kinds differ in.

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it is there."""

    @abstractmethod
    async def wait_dead(self) -> None:
        """Return when it has ended, by `stop` or otherwise."""

    @abstractmethod
    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port inside; blocking.

        Raises:
            ConnectionRefusedError: Nothing listens there.
        """

    @abstractmethod
    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on a port inside, for this process to serve; 0 takes a free port.

        Raises:
            OSError: The port is taken.
        """

    @abstractmethod
    def _start(self) -> None:
        """Make it, blocking; sets `files`."""

    @abstractmethod
    def _watch(self) -> None:
        """Notice its end from now on; called on the loop."""

    @abstractmethod
    def _end(self) -> None:
        """End every process of it and let go of what it held, but for its directory; blocking."""

    @abstractmethod
    def _pids(self) -> list[int]:
        """Return the host's ids of its processes, without its init."""

    @abstractmethod
    def _enter(self, user: str) -> list[str]:
        """Return the command by which another enters it as a user."""

    @abstractmethod
    def _place(self, path: str) -> str:
        """Return where a process of it finds a path."""

    @property
    @abstractmethod
    def _terminals(self) -> str:
        """The path of the multiplexer for terminals."""

    @property
    @abstractmethod
    def _source(self) -> Path:
        """The host's path of its writable file system."""

    # What they share.

    @property
    def _sized(self) -> bool:
        """Whether its storage is limited to the size that was asked for."""
        return True

    @property
    @abstractmethod
    def base_env(self) -> dict[str, str]:
        """The environment of all of its processes, before other variables."""

    def home(self, user: str) -> str | None:
        """Return the home of a user, None for one that is not there."""
        return HOME.get(user)

    def owner(self, user: str) -> tuple[int, int]:
        """Return the ids that files of a user have on the host."""
        number = UID[user]
        return (number, number) if isolation().root else (os.getuid(), os.getgid())

    def name_of(self, number: int) -> str:
        """Return the name of a user or group by its id on the host, or the number."""
        if not isolation().root and number in (os.getuid(), os.getgid()):
            return "user"
        return next((name for name, known in UID.items() if known == number), str(number))

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        user: str = "user",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Literal["pipe", "null"] = "null",
        pty: tuple[int, int] | None = None,
    ) -> Process:
        """Start a process.

        Args:
            argv: The command.
            user: `user` or `root`.
            env: Added to `base_env`, HOME, USER and LOGNAME.
            cwd: Working directory, by default the user's home.
            stdin: Whether its input can be written to.
            pty: Columns and rows of a terminal, or None for pipes.

        Raises:
            KeyError: There is no such user.
            OSError: The sandbox has ended.
        """
        if not self.alive:
            raise OSError(errno.ESRCH, "the sandbox has ended")
        home = HOME[user]
        own = {"HOME": self._place(home), "USER": user, "LOGNAME": user}
        return await spawn(
            self._enter(user),
            argv,
            env={**self.base_env, **(self._egress.environment if self._egress else {}), **own, **(env or {})},
            cwd=self._place(cwd or home),
            stdin=stdin,
            pty=(self._terminals, self.owner(user)[0], *pty) if pty else None,
            cgroup=self._cgroup_entries,
            lasting=self.spec.keeper is not None,
        )

    @property
    def _cgroup_entries(self) -> Sequence[int]:
        """Descriptors by which a process joins the control group of the sandbox."""
        return ()

    def _introduce(self) -> None:
        """Write the sandbox's id where programs for E2B look for it."""
        # Not on the host's paths: a saved file system may have links in these places.
        with contextlib.suppress(OSError):
            self.files.make_directories(IDENTITY, self.owner("root"))
            for name, text in ((".E2B_SANDBOX", "true"), (".E2B_SANDBOX_ID", self.spec.sandbox_id)):
                descriptor = self.files.create(f"{IDENTITY}/{name}", self.owner("root"))
                try:
                    os.write(descriptor, text.encode())
                finally:
                    os.close(descriptor)

    def set_network(self, network: Reach) -> None:
        """Let it reach other machines through a proxy, or not; what is open is cut. On the loop, as `start` is.

        Programs that began without the network do not know of the proxy.
        """
        if self._egress is not None and not network.nowhere:
            self._egress.change(network)
        elif self._egress is not None:
            self._egress.close()
            self._egress = None
        elif not network.nowhere and self.alive:
            self._egress = Egress(self._listen_for_way_out(), network, self.spec.hostname)
        if self._host_ports is not None and network.nowhere:
            self._host_ports.close()
            self._host_ports = None
        elif self._host_ports is None and not network.nowhere and self.spec.host_ports and self.alive:
            self._host_ports = HostPorts(self.listen, self.spec.host_ports)

    def _listen_for_way_out(self) -> socket.socket:
        return self.listen(0)

    async def freeze(self) -> None:
        """Freeze all of its processes."""
        await asyncio.to_thread(self._halt.halt)

    async def thaw(self) -> None:
        """Continue them."""
        await asyncio.to_thread(self._halt.resume)

    async def save(self, target: Path) -> None:
        """Copy its writable file system to a directory of the host, with owners, modes and links."""
        await asyncio.to_thread(copy_tree, self._source, target)

    def processes(self) -> list[tuple[int, list[str]]]:
        """Return its processes: the id inside, and the command; blocking."""
        found = []
        for pid in self._pids():
            with contextlib.suppress(OSError, IndexError, ValueError):
                status = Path(f"/proc/{pid}/status").read_text(errors="replace")
                inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                found.append((int(inside), command.rstrip("\0").split("\0")))
        return sorted(found)

    def usage(self) -> Usage:
        """Return what it uses now; blocking."""
        now, cpu, memory, processes = time.monotonic(), 0.0, 0, 0
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        for pid in self._pids():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
                cpu += (int(fields[11]) + int(fields[12])) / tick
                memory += int(fields[21]) * page
                processes += 1
        before, used = self._cpu
        self._cpu = (now, cpu)
        percent = max(0.0, (cpu - used) / max(now - before, 1e-3) * 100)
        disk = os.statvfs(self._source) if self.alive else os.statvfs("/")
        total = disk.f_blocks * disk.f_frsize
        return Usage(
            cpu_percent=percent,
            memory_used=memory,
            memory_total=self.spec.memory_bytes or os.sysconf("SC_PHYS_PAGES") * page,
            disk_used=total - disk.f_bfree * disk.f_frsize,
            disk_total=total,
            processes=processes,
        )

    def fill_disk(self, full: bool) -> None:
        """Let every write fail with "no space", or stop that. Processes see it if the storage has a size."""
        self.files.full = False
        if self.spec.storage_bytes and self._sized:
            if full:
                descriptor = self.files.create(FILLER, self.owner("root"))
                try:
                    room = os.fstatvfs(descriptor)
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(descriptor, 0, max(1, room.f_bfree * room.f_frsize))
                finally:
                    os.close(descriptor)
            else:
                self.files.remove(FILLER)
        self.files.full = full

    async def stop(self) -> None:
        """End its processes and remove its directory. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._let_go()
        await asyncio.to_thread(self._remove)

    async def leave(self) -> None:
        """Let go of it and let its processes run: another emulator adopts it."""
        if self._stopped:
            return
        self._stopped = True
        self._let_go()
        self.files.close()

    def _let_go(self) -> None:
        """Stop serving its processes."""
        if self._egress is not None:
            self._egress.close()
            self._egress = None
        if self._host_ports is not None:
            self._host_ports.close()
            self._host_ports = None
        if self._leftover is not None:
            self._leftover.close()
            self._leftover = None

    def _remove(self) -> None:
        try:
            self._end()
        finally:
            self._halt.resume()
            if hasattr(self, "files"):
                self.files.close()
            remove_tree(self.spec.directory)

    def _rests(self, pid: int) -> bool:
        """Return True if a process is stopped already, or has ended."""
        return is_at_rest(pid)
