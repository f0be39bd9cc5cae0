"""A sandbox in Linux namespaces of its own: one long-lived bubblewrap, which commands enter by nsenter."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from .isolation import isolation
from .process import Process, spawn
from .skeleton import ETC_DIRECTORIES, HOME, PATH, PYTHON, READ_ONLY, UID, build_skeleton, python_prefix
from .spec import SandboxSpec, Usage
from .tree import Tree

START_TIMEOUT = 15.0
CAPABILITIES = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,"
    "net_bind_service,net_raw,sys_chroot,audit_write,setfcap"
)
"""What root may do inside: what containers give it by default. The rest would reach the host's clock, disks, kernel."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Connects inside of a network namespace and hands the socket over, for whoever may not enter it by a thread.
_CONNECT = """
import socket, sys
ours = socket.socket(fileno=int(sys.argv[1]))
theirs = socket.socket()
theirs.settimeout(10)
try:
    theirs.connect(("127.0.0.1", int(sys.argv[2])))
except OSError as error:
    ours.send(str(error.errno or 111).encode())
else:
    socket.send_fds(ours, [b"ok"], [theirs.fileno()])
"""


class NamespaceSandbox:
    """One sandbox. Use `Sandbox.start`."""

    def __init__(self, spec: SandboxSpec) -> None:
        """Hold the description; nothing runs yet."""
        self.spec = spec
        self._bwrap: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._dead: asyncio.Future[None] | None = None
        self._stopped = False
        self._cpu: tuple[float, float] = (time.monotonic(), 0.0)
        self.files: Tree

    @classmethod
    async def start(cls, spec: SandboxSpec) -> NamespaceSandbox:
        """Start a sandbox.

        Raises:
            OSError: It could not be made.
        """
        sandbox = cls(spec)
        try:
            await asyncio.to_thread(sandbox._start)
        except BaseException:
            await asyncio.to_thread(sandbox._end)
            raise
        sandbox._watch()
        return sandbox

    @property
    def _in_memory(self) -> bool:
        """Whether its file system is a tmpfs of a size, for which only root can set one."""
        return self.spec.storage_bytes is not None and isolation().root

    @property
    def alive(self) -> bool:
        """Whether its namespaces are there."""
        return self._bwrap is not None and self._bwrap.poll() is None

    @property
    def base_env(self) -> dict[str, str]:
        """What every process of it finds in its environment, before anything else."""
        prefix = python_prefix()
        return {"PATH": f"{PATH}:{PYTHON}/bin" if prefix else PATH}

    def home(self, user: str) -> str | None:
        """Return the home of a user, None for one that is not there."""
        return HOME.get(user)

    def owner(self, user: str) -> tuple[int, int]:
        """Return the ids that files of a user have."""
        number = UID[user] if isolation().root else os.getuid()
        return number, number

    def name_of(self, uid: int) -> str:
        """Return the name of a user by id, or the number."""
        if not isolation().root and uid == os.getuid():
            return "user"
        return next((name for name, number in UID.items() if number == uid), str(uid))

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
        environment = {**self.base_env, "HOME": home, "USER": user, "LOGNAME": user, **(env or {})}
        terminal = (f"/proc/{self._init}/root/dev/pts/ptmx", self.owner(user)[0], *pty) if pty else None
        return await spawn(self._enter(user), argv, env=environment, cwd=cwd or home, stdin=stdin, pty=terminal)

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port inside; blocking.

        Raises:
            ConnectionRefusedError: Nothing listens there.
        """
        if not self.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the sandbox has ended")
        return self._connect_by_thread(port) if isolation().root else self._connect_by_process(port)

    async def freeze(self) -> None:
        """Stop every process of it in its tracks."""
        await asyncio.to_thread(self._signal_all, signal.SIGSTOP)

    async def thaw(self) -> None:
        """Let them go on."""
        await asyncio.to_thread(self._signal_all, signal.SIGCONT)

    async def save(self, target: Path) -> None:
        """Copy its writable file system to a directory of the host."""
        await asyncio.to_thread(self._save, target)

    def usage(self) -> Usage:
        """Return what it uses now; blocking."""
        now, cpu, memory, processes = time.monotonic(), 0.0, 0, 0
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        for pid in self._pids():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu += (int(fields[11]) + int(fields[12])) / tick
                memory += int(fields[21]) * page
                processes += 1
        before, used = self._cpu
        self._cpu = (now, cpu)
        percent = max(0.0, (cpu - used) / max(now - before, 1e-3) * 100)
        disk = os.statvfs(f"/proc/{self._init}/root") if self.alive else os.statvfs("/")
        total = self.spec.storage_bytes or disk.f_blocks * disk.f_frsize
        return Usage(
            cpu_percent=percent,
            memory_used=memory,
            memory_total=self.spec.memory_bytes or os.sysconf("SC_PHYS_PAGES") * page,
            disk_used=total - disk.f_bavail * disk.f_frsize if self.spec.storage_bytes else 0,
            disk_total=total,
            processes=processes,
        )

    def fill_disk(self, full: bool) -> None:
        """Make every write fail for want of space, or no more; processes meet it where the storage has a size."""
        self.files.full = False
        filler = "/.full"
        if self.spec.storage_bytes:
            if full:
                descriptor = self.files.create(filler, (0, 0))
                try:
                    room = os.fstatvfs(descriptor)
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(descriptor, 0, max(1, room.f_bfree * room.f_frsize))
                finally:
                    os.close(descriptor)
            else:
                self.files.remove(filler)
        self.files.full = full

    async def wait_dead(self) -> None:
        """Return when it has ended, by `stop` or by itself."""
        if self._dead is not None:
            await asyncio.shield(self._dead)

    async def stop(self) -> None:
        """End every process of it and remove its directory; once more is a success."""
        if self._stopped:
            return
        self._stopped = True
        await asyncio.to_thread(self._end)

    def _start(self) -> None:
        spec = self.spec
        place = isolation()
        assert place.bwrap is not None
        root = spec.directory / "root"
        root.mkdir(parents=True, exist_ok=True)
        in_memory = self._in_memory
        if not in_memory:
            self._fill(root)
        read, write = os.pipe()
        # By a descriptor, so that `ps` inside does not show where things are on the host.
        arguments = _descriptor_of("\0".join(self._options(root, in_memory)).encode())
        command = [place.bwrap, "--args", str(arguments), "--info-fd", str(write), "--", "sleep", "2147483647"]
        try:
            self._bwrap = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": PATH},
                pass_fds=[write, arguments],
                start_new_session=True,
            )
        finally:
            os.close(write)
            os.close(arguments)
        with os.fdopen(read) as info:
            told = info.read()
        if not told:
            _, error = self._bwrap.communicate(timeout=START_TIMEOUT)
            raise OSError(errno.EIO, f"bubblewrap: {error.decode(errors='replace').strip()}")
        self._init = int(json.loads(told)["child-pid"])
        self._wait_ready()
        self.files = Tree(os.open(f"/proc/{self._init}/root", os.O_PATH | os.O_DIRECTORY), chown=place.root)
        if in_memory:
            self._fill(Path(f"/proc/{self._init}/root"))
        if place.root:
            self._allow_su()

    def _allow_su(self) -> None:
        """Let setuid programs work on the sandbox's own file system: bubblewrap mounts all without."""
        options = f"remount,suid,nodev{f',size={self.spec.storage_bytes}' if self._in_memory else ',bind'}"
        enter = ["nsenter", "--target", str(self._init), "-m", "--", "mount", "-o", options, "/"]
        subprocess.run(enter, check=False, capture_output=True, stdin=subprocess.DEVNULL)

    def _fill(self, root: Path) -> None:
        if self.spec.seed is not None:
            _copy_tree(self.spec.seed, root)
        else:
            build_skeleton(root, self.spec.hostname, isolation().root)

    def _options(self, root: Path, in_memory: bool) -> Iterator[str]:
        spec = self.spec
        if not isolation().root:
            # Default mapping would nest a second user namespace, which nsenter may not enter.
            yield from ("--unshare-user", "--uid", "0", "--gid", "0")
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--hostname", spec.hostname)
        yield from ("--die-with-parent", "--new-session")
        if in_memory:
            yield from ("--perms", "0755", "--size", str(spec.storage_bytes), "--tmpfs", "/")
        else:
            yield from ("--bind", str(root), "/")
        for name in READ_ONLY:
            path = Path(name)
            if path.is_symlink():
                if in_memory:
                    yield from ("--symlink", os.readlink(path), name)
            elif path.is_dir():
                yield from ("--ro-bind", name, name)
        prefix = python_prefix()
        if prefix is not None:
            yield from ("--ro-bind", str(prefix), PYTHON)
        for name in ETC_DIRECTORIES:
            if Path(name).is_dir():
                yield from ("--ro-bind", name, name)
        for bind in spec.binds:
            yield from ("--ro-bind" if bind.readonly else "--bind", str(bind.source), bind.target)
        yield from ("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--chdir", "/")

    def _wait_ready(self) -> None:
        """Wait until the namespaces are whole: bubblewrap tells the id before it has mounted everything."""
        deadline = time.monotonic() + START_TIMEOUT
        assert self._bwrap is not None
        while time.monotonic() < deadline:
            if self._bwrap.poll() is not None:
                error = self._bwrap.stderr.read().decode(errors="replace") if self._bwrap.stderr else ""
                raise OSError(errno.EIO, f"bubblewrap: {error.strip()}")
            # The second process of the namespace is `sleep`: it is executed when all is mounted.
            children = Path(f"/proc/{self._init}/task/{self._init}/children")
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                        return
            time.sleep(0.001)
        raise OSError(errno.ETIMEDOUT, "bubblewrap did not become ready")

    def _enter(self, user: str) -> list[str]:
        target = ["nsenter", "--target", str(self._init)]
        if not isolation().root:
            return [*target, "-U", "--preserve-credentials", "-m", "-p", "-i", "-u", "-n", "--"]
        number = str(UID[user])
        drop = ["setpriv", "--reuid", number, "--regid", number, "--init-groups", "--pdeathsig", "KILL"]
        kept = "-all," + ",".join(f"+{name}" for name in CAPABILITIES.split(","))
        return [*target, "-m", "-p", "-i", "-u", "-n", "--", *drop, "--bounding-set", kept, "--"]

    def _watch(self) -> None:
        """Settle `wait_dead` when the namespaces end."""
        assert self._bwrap is not None
        loop = asyncio.get_running_loop()
        dead = self._dead = loop.create_future()
        pidfd = os.pidfd_open(self._bwrap.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            if not dead.done():
                dead.set_result(None)

        loop.add_reader(pidfd, ended)

    def _end(self) -> None:
        if self._bwrap is not None:
            # The first process of the namespace takes all others with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init or self._bwrap.pid, signal.SIGKILL)
            try:
                self._bwrap.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._bwrap.kill()
                self._bwrap.wait()
            if self._bwrap.stderr:
                self._bwrap.stderr.close()
        if hasattr(self, "files"):
            self.files.close()
        shutil.rmtree(self.spec.directory, ignore_errors=True)

    def _connect_by_thread(self, port: int) -> socket.socket:
        """Connect in a thread that enters the network namespace and ends there: a namespace belongs to a thread."""
        outcome: list[socket.socket | OSError] = []

        def work() -> None:
            try:
                namespace = os.open(f"/proc/{self._init}/ns/net", os.O_RDONLY)
                try:
                    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(namespace)
                outcome.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            except OSError as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return _opened(outcome[0], port)

    def _connect_by_process(self, port: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            enter = ["nsenter", "--target", str(self._init), "-U", "--preserve-credentials", "-n", "--"]
            command = [*enter, sys.executable, "-I", "-S", "-c", _CONNECT, str(theirs.fileno()), str(port)]
            subprocess.run(command, pass_fds=[theirs.fileno()], check=False, timeout=20, stdin=subprocess.DEVNULL)
            theirs.close()
            told, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        if descriptors:
            return socket.socket(fileno=descriptors[0])
        code = int(told) if told.isdigit() else errno.ECONNREFUSED
        return _opened(OSError(code, os.strerror(code)), port)

    def _pids(self) -> list[int]:
        """Return the host's ids of all processes of it, without its init."""
        try:
            mine = os.readlink(f"/proc/{self._init}/ns/pid")
        except OSError:
            return []
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self._init:
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/ns/pid") == mine:
                        found.append(int(name))
        return found

    def _signal_all(self, number: signal.Signals) -> None:
        reached: set[int] = set()
        # A process may fork while it is being stopped: again, until nobody new is found.
        for _ in range(10):
            fresh = [pid for pid in self._pids() if pid not in reached]
            if not fresh:
                return
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            reached.update(fresh)

    def _save(self, target: Path) -> None:
        # The directory on the host has no mounts in it; a tmpfs is another file system than what is mounted in it.
        source = Path(f"/proc/{self._init}/root") if self._in_memory else self.spec.directory / "root"
        _copy_tree(source, target)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy one file system with owners, links and modes, without what is mounted in it.

    Mount points of the target are read-only, and only their attributes would be copied: that failure is none.
    """
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["cp", "-a", "--one-file-system", f"{source}/.", f"{target}/"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": PATH, "LC_ALL": "C"},
    )
    problems = [line for line in done.stderr.splitlines() if not line.endswith("Read-only file system")]
    if done.returncode != 0 and problems:
        raise OSError(errno.EIO, f"copy of {source}: {problems[-1]}")


def _descriptor_of(data: bytes) -> int:
    """Return a descriptor to read some data from."""
    descriptor = os.memfd_create("arguments")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _opened(outcome: socket.socket | OSError, port: int) -> socket.socket:
    if isinstance(outcome, OSError):
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"port {port}: {outcome.strerror or outcome}") from outcome
    outcome.settimeout(None)
    return outcome
