"""A sandbox in its own Linux namespaces: one long-lived bubblewrap, which commands enter by nsenter."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ags_flows.emulator.sandbox.cgroup import Cgroup
from ags_flows.emulator.sandbox.entering import connect_inside, listen_inside, open_low_ports, remount_inside
from ags_flows.emulator.sandbox.isolation import isolation
from ags_flows.emulator.sandbox.outliving import Elder, Life, began, mark
from ags_flows.emulator.sandbox.sandbox import Sandbox
from ags_flows.emulator.sandbox.skeleton import (
    ETC_DIRECTORIES,
    PATH,
    PYTHON,
    READ_ONLY,
    UID,
    build_skeleton,
    make_mount_points,
    program,
    python_prefix,
)
from ags_flows.emulator.sandbox.spec import SandboxSpec
from ags_flows.emulator.sandbox.tree import Tree, copy_tree

START_TIMEOUT = 15.0
CAPABILITIES = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,"
    "net_bind_service,net_raw,sys_chroot,audit_write,setfcap"
)
"""What root may do inside: what containers give it by default. The rest would reach the host's clock, disks, kernel."""

KERNEL_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/fs", "/proc/acpi", "/proc/scsi")
KERNEL_HIDDEN = ("/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
"""What of the host's kernel is in /proc, and would be root's inside to change or to read."""

_READY = "init"
_MS_NODEV, _MS_REMOUNT, _MS_BIND = 0x4, 0x20, 0x1000


class NamespaceSandbox(Sandbox):
    """A sandbox with separate processes, users, files, ports and host name."""

    def __init__(self, spec: SandboxSpec) -> None:
        """Hold the description; nothing runs yet. Use `Sandbox.start`."""
        super().__init__(spec)
        self._bwrap: subprocess.Popen[bytes] | Elder | None = None
        self._init = 0
        self._dead: asyncio.Future[None] | None = None
        self._cgroup: Cgroup | None = None
        self._proxy: int | None = None

    @property
    def alive(self) -> bool:
        """Whether its namespaces are there."""
        return self._bwrap is not None and self._bwrap.poll() is None

    @property
    def base_env(self) -> dict[str, str]:
        """The environment of all of its processes, before other variables."""
        return {"PATH": f"{PATH}:{PYTHON}/bin" if python_prefix() else PATH}

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port inside; blocking."""
        if not self.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the sandbox has ended")
        return connect_inside(self._init, port)

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on a port inside."""
        if not self.alive:
            raise OSError(errno.ESRCH, "the sandbox has ended")
        return listen_inside(self._init, port)

    async def freeze(self) -> None:
        """Freeze all of its processes: by its cgroup if it has one, which they do not notice."""
        if self._cgroup is not None:
            await asyncio.to_thread(self._cgroup.freeze, True)
        await super().freeze()

    async def thaw(self) -> None:
        """Continue them."""
        await super().thaw()
        if self._cgroup is not None:
            await asyncio.to_thread(self._cgroup.freeze, False)

    def take_over(self) -> None:
        """Take up the processes that another emulator has left.

        Raises:
            OSError: They are not there any more.
        """
        life = Life.read(self.spec.directory)
        if life is None:
            raise OSError(errno.ESRCH, "nothing is left of the sandbox")
        elder = Elder(life.bwrap)
        if not life.lasts:
            raise OSError(errno.ESRCH, "the sandbox has ended")
        self._bwrap, self._init, self._proxy = elder, life.init, life.proxy
        self.files = Tree(os.open(f"/proc/{self._init}/root", os.O_PATH | os.O_DIRECTORY), chown=isolation().root)
        if life.cgroup is not None:
            with contextlib.suppress(OSError):
                self._cgroup = Cgroup(Path(life.cgroup))
        self._note()

    def _note(self) -> None:
        """Note what the sandbox is, for an emulator that is to go on with it."""
        start, waiting = began(self._init), began(self._bwrap.pid) if self._bwrap is not None else None
        if self.spec.keeper is None or self._bwrap is None or start is None or waiting is None:
            return
        group = str(self._cgroup.path) if self._cgroup is not None else None
        Life(self.spec.keeper, self._init, start, self._bwrap.pid, waiting, group, self._proxy).write(
            self.spec.directory
        )

    def _listen_for_way_out(self) -> socket.socket:
        # Its processes know the port from before.
        listener = self.listen(self._proxy or 0)
        if listener.getsockname()[1] != self._proxy:
            self._proxy = listener.getsockname()[1]
            self._note()
        return listener

    async def wait_dead(self) -> None:
        """Return when it has ended, by `stop` or otherwise."""
        if self._dead is not None:
            await asyncio.shield(self._dead)

    @property
    def _in_memory(self) -> bool:
        """Whether its file system is a tmpfs, which is what can have a size."""
        return self.spec.storage_bytes is not None

    @property
    def _cgroup_entries(self) -> Sequence[int]:
        return self._cgroup.entries if self._cgroup is not None else ()

    @property
    def _terminals(self) -> str:
        return f"/proc/{self._init}/root/dev/pts/ptmx"

    @property
    def _source(self) -> Path:
        # The directory on the host has no mounts in it; a tmpfs is another file system than what is mounted in it.
        return Path(f"/proc/{self._init}/root") if self._in_memory else self.spec.directory / "root"

    def _place(self, path: str) -> str:
        return path

    def _start(self) -> None:
        spec, place = self.spec, isolation()
        assert place.bwrap is not None
        root = spec.directory / "root"
        root.mkdir(parents=True, exist_ok=True)
        in_memory = self._in_memory
        if not in_memory:
            self._fill(root)
        read, write = os.pipe()
        # By a descriptor, so that `ps` inside does not show where things are on the host.
        boot = _descriptor_of(f"{uuid.uuid4()}\n".encode())
        arguments = _descriptor_of("\0".join(self._options(root, in_memory, boot)).encode())
        # Not by its path, which `ps` inside would show.
        command = ["bwrap", "--args", str(arguments), "--info-fd", str(write), "--", *_init_command()]
        try:
            self._bwrap = subprocess.Popen(
                command,
                executable=place.bwrap,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": PATH, **(mark(spec.keeper, spec.sandbox_id) if spec.keeper else {})},
                pass_fds=[write, arguments, boot, *(place.users or ())],
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            for descriptor in (write, arguments, boot):
                os.close(descriptor)
        with os.fdopen(read) as info:
            told = info.read()
        if not told:
            _, error = self._bwrap.communicate(timeout=START_TIMEOUT)
            raise OSError(errno.EIO, f"bubblewrap: {error.decode(errors='replace').strip()}")
        self._init = int(json.loads(told)["child-pid"])
        self._note()
        keeper = self._wait_ready()
        self.files = Tree(os.open(f"/proc/{self._init}/root", os.O_PATH | os.O_DIRECTORY), chown=place.root)
        if in_memory:
            self._fill(Path(f"/proc/{self._init}/root"))
        if place.root:
            self._allow_su()
        if place.users is not None:
            # Root's right to them is one over the network's namespace, which is not that of the sandbox's users.
            with contextlib.suppress(OSError):
                open_low_ports(self._init)
        self._cgroup = Cgroup.make(spec.sandbox_id, spec.memory_bytes)
        if self._cgroup is not None:
            self._cgroup.add(self._init, keeper)
        self._note()

    def _allow_su(self) -> None:
        """Let setuid programs work on the sandbox's own file system: bubblewrap mounts all without."""
        if self._in_memory:
            flags, data = _MS_REMOUNT | _MS_NODEV, f"size={self.spec.storage_bytes}"
        else:
            flags, data = _MS_REMOUNT | _MS_NODEV | _MS_BIND, ""
        # Where the kernel refuses it, all works but for `sudo`.
        with contextlib.suppress(OSError):
            remount_inside(self._init, "/", flags, data)

    def _fill(self, root: Path) -> None:
        if self.spec.seed is not None:
            copy_tree(self.spec.seed, root)
            if not self._in_memory:
                binds = [bind.target for bind in self.spec.binds if bind.source.is_dir()]
                files = [bind.target for bind in self.spec.binds if not bind.source.is_dir()]
                make_mount_points(root, ["/dev", "/proc", PYTHON, *READ_ONLY, *ETC_DIRECTORIES, *binds], files)
        else:
            build_skeleton(root, self.spec.hostname, isolation().root)
            if self.spec.image is not None:
                copy_tree(self.spec.image, root)

    def _options(self, root: Path, in_memory: bool, boot: int) -> Iterator[str]:
        spec = self.spec
        if not isolation().root:
            # Default mapping would nest a second user namespace, which nsenter may not enter.
            yield from ("--unshare-user", "--uid", "0", "--gid", "0")
        elif (users := isolation().users) is not None:
            yield from ("--userns", str(users.outer), "--userns2", str(users.inner))
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--hostname", spec.hostname)
        yield "--new-session"
        if spec.keeper is None:
            yield "--die-with-parent"
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
            # Parent directories that bubblewrap creates are private to their owner.
            for parent in reversed(PurePosixPath(bind.target).parents):
                yield from ("--dir", str(parent))
            yield from ("--ro-bind" if bind.readonly else "--bind", str(bind.source), bind.target)
        yield from ("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm")
        # The kernel checks the user id here, not the rights: root inside could change the host.
        for name in filter(os.path.exists, KERNEL_READ_ONLY):
            yield from ("--ro-bind", name, name)
        for name in filter(os.path.exists, KERNEL_HIDDEN):
            yield from ("--ro-bind", "/dev/null", name)
        # A resume without memory is a boot: programs see it by a new boot id.
        yield from ("--perms", "0444", "--ro-bind-data", str(boot), "/proc/sys/kernel/random/boot_id")
        # With a special name: `pkill sleep` inside must not end the sandbox.
        yield from ("--symlink", program("sleep"), f"/dev/{_READY}", "--chdir", "/")

    def _wait_ready(self) -> int:
        """Wait until the namespaces are whole: bubblewrap writes the id before it has mounted everything.

        Returns:
            The host's id of the process that keeps them.
        """
        deadline = time.monotonic() + START_TIMEOUT
        assert self._bwrap is not None
        name = _init_command()[0].rpartition("/")[2]
        while time.monotonic() < deadline:
            if self._bwrap.poll() is not None:
                error = self._bwrap.stderr.read().decode(errors="replace") if self._bwrap.stderr else ""
                raise OSError(errno.EIO, f"bubblewrap: {error.strip()}")
            # The second process of the namespace: it is executed when all is mounted.
            children = Path(f"/proc/{self._init}/task/{self._init}/children")
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().strip() == name:
                        return int(child)
            time.sleep(0.001)
        raise OSError(errno.ETIMEDOUT, "bubblewrap did not become ready")

    def _enter(self, user: str) -> list[str]:
        target = [program("nsenter"), "--target", str(self._init)]
        kept = ["--bounding-set", "-all," + ",".join(f"+{name}" for name in CAPABILITIES.split(","))]
        if not isolation().root:
            # What is mounted read-only may be this user's own.
            drop = [program("setpriv"), *kept, "--inh-caps", "-all"]
            return [*target, "-U", "--preserve-credentials", "-m", "-p", "-i", "-u", "-n", "--", *drop, "--"]
        number = str(UID[user])
        drop = [program("setpriv"), "--reuid", number, "--regid", number, "--init-groups", "--pdeathsig", "KILL"]
        # What is executed from here on has the sandbox's loader and libraries: it must have no rights outside.
        users = ["-U", "--preserve-credentials"] if isolation().users is not None else []
        return [*target, *users, "-m", "-p", "-i", "-u", "-n", "--", *drop, *kept, "--"]

    def _watch(self) -> None:
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

    def _rests(self, pid: int) -> bool:
        return super()._rests(pid) or (self._cgroup is not None and self._cgroup.has_frozen(pid))

    def _end(self) -> None:
        if self._bwrap is not None:
            # The first process of the namespace takes all others with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init or self._bwrap.pid, signal.SIGKILL)
            try:
                self._bwrap.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._bwrap.kill()
                self._bwrap.wait(START_TIMEOUT)
            if self._bwrap.stderr:
                self._bwrap.stderr.close()
        if self._cgroup is not None:
            self._cgroup.remove()

    def _pids(self) -> list[int]:
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


def _init_command() -> list[str]:
    """Return the command that keeps the namespaces."""
    sleep = os.path.realpath(program("sleep"))
    # If all tools are one program, its name selects the tool.
    name = f"/dev/{_READY}" if os.path.basename(sleep) == "sleep" else "sleep"
    return [name, "2147483647"]


def _descriptor_of(data: bytes) -> int:
    """Return a descriptor to read some data from."""
    descriptor = os.memfd_create("arguments")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
