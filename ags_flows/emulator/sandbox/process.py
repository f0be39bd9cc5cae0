"""A process in a sandbox: its pipes or terminal, its id inside, its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from typing import Literal

from ags_flows.emulator.sandbox.leftover import with_own_reader
from ags_flows.emulator.sandbox.skeleton import program

READ_LIMIT = 1 << 17

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441

# Writes its id to a descriptor, goes to its directory ($1), and becomes the command. Bash, since dash knows descriptors
# of one digit only; -p, so that no BASH_ENV of the command's environment is read here.
_ENTER = '{counted}echo $$ >&{number}; exec {number}>&-; cd -- "$1" || exit 1; shift; exec "$@"'
# Goes into the sandbox's control group. Kernels before 5.16 refuse that to other users: then it is stopped by signals.
_COUNTED = "{{ echo 0 >&{entry}; }} 2>/dev/null; exec {entry}>&-; "


class Process:
    """A running process.

    Attributes:
        pid: Its id inside of the sandbox.
        stdout: Its output, or that of its terminal.
        stderr: Its error output; None for a terminal.
        returncode: None while it runs; negative for a signal.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        """Use `spawn`."""
        self.pid = 0
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.returncode: int | None = None
        self._popen = popen
        self._inner: int | None = None
        self._stdin: int | None = None
        self._terminal: int | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._ended = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Return the exit code once the process has ended; negative for a signal."""
        return int(await asyncio.shield(self._ended))

    async def write(self, data: bytes) -> None:
        """Write to its input.

        Raises:
            BrokenPipeError: Its input is closed, or was never open.
        """
        target = self._terminal if self._terminal is not None else self._stdin
        if target is None:
            raise BrokenPipeError("stdin not enabled or closed")
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(target, rest[:65536]) :]
            except BlockingIOError:
                room: asyncio.Future[None] = loop.create_future()
                loop.add_writer(target, _settle, room)
                try:
                    await asyncio.wait([room, self._ended], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    loop.remove_writer(target)
                if self._ended.done():
                    raise BrokenPipeError("the process has ended") from None

    def close_stdin(self) -> None:
        """Close its input. Idempotent."""
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    @property
    def has_terminal(self) -> bool:
        """Whether it runs on a terminal."""
        return self._terminal is not None

    def resize(self, cols: int, rows: int) -> None:
        """Change the size of its terminal."""
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the process alone, not to its children; False when it has ended."""
        if self.returncode is not None or self._inner is None:
            return False
        try:
            signal.pidfd_send_signal(self._inner, number)
        except ProcessLookupError:
            return False
        return True

    def release(self) -> None:
        """Close its descriptors; output that was not read is lost."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        self.close_stdin()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


async def spawn(
    enter: Sequence[str],
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    stdin: Literal["pipe", "null"],
    pty: tuple[str, int, int, int] | None,
    cgroup: Sequence[int] = (),
    lasting: bool = False,
) -> Process:
    """Start a process by way of a command that enters the sandbox.

    Args:
        enter: The command, such as nsenter with its options.
        argv: What to execute inside.
        env: The whole environment.
        cwd: Working directory inside.
        stdin: Whether its input can be written to.
        pty: Where terminals are made (the sandbox's own, so that they have names inside), the owner's id, columns and
            rows; or None for pipes.
        cgroup: Descriptors; a process that writes `0` to them joins the sandbox's control group.
        lasting: Whether it goes on, and may write, when this process has ended.
    """
    with _Held() as held:
        pid_read, pid_write = held.add(*os.pipe())
        if pty is not None:
            master, slave = held.add(*_terminal(*pty))
            given, in_write = [slave] * 3, -1
        else:
            if stdin == "pipe":
                in_read, in_write = held.add(*os.pipe())
            else:
                (in_read,), in_write = held.add(os.open(os.devnull, os.O_RDONLY)), -1
            out_read, out_write = held.add(*os.pipe())
            err_read, err_write = held.add(*os.pipe())
            if lasting:
                (own,) = held.add(with_own_reader(out_write))
                (own_too,) = held.add(with_own_reader(err_write))
                for descriptor in (out_write, err_write):
                    os.close(held.take(descriptor))
                out_write, err_write = own, own_too
            given = [in_read, out_write, err_write]
        counted = "".join(_COUNTED.format(entry=entry) for entry in cgroup)
        inner = ["/bin/bash", "-p", "-c", _ENTER.format(number=pid_write, counted=counted), "bash", cwd, *argv]
        popen = subprocess.Popen(
            [*enter, *([program("setsid"), "--ctty"] if pty is not None else []), *inner],
            stdin=given[0],
            stdout=given[1],
            stderr=given[2],
            env=dict(env),
            pass_fds=[pid_write, *cgroup],
            start_new_session=True,
        )
        for descriptor in {*given, pid_write}:
            os.close(held.take(descriptor))
        process = Process(popen)
        try:
            if pty is not None:
                process._terminal = held.take(master)
                os.set_blocking(master, False)
                process.stdout = await _reader(process, os.dup(master))
            else:
                if in_write >= 0:
                    process._stdin = held.take(in_write)
                    os.set_blocking(in_write, False)
                process.stdout = await _reader(process, held.take(out_read))
                process.stderr = await _reader(process, held.take(err_read))
            line = await _read_line(held.take(pid_read))
            process.pid = int(line) if line.isdigit() else popen.pid
            _watch_end(process, popen, bool(enter))
        except BaseException:
            # Out of descriptors, or the caller was cancelled.
            process.release()
            for pid in (*_children(popen.pid), popen.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            popen.wait()
            raise
    return process


class _Held:
    """Descriptors on their way to an owner; those that have none in the end are closed."""

    def __init__(self) -> None:
        self._descriptors: set[int] = set()

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def add(self, *descriptors: int) -> tuple[int, ...]:
        self._descriptors.update(descriptors)
        return descriptors

    def take(self, descriptor: int) -> int:
        self._descriptors.remove(descriptor)
        return descriptor


def _watch_end(process: Process, popen: subprocess.Popen[bytes], entered: bool) -> None:
    """Settle the process's end when it comes: by pidfd, without a thread for each process."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(popen.pid)

    def inner_ended() -> None:
        # Where the process was stopped (SIGSTOP), nsenter has stopped itself too, and would never report its end.
        assert process._inner is not None
        loop.remove_reader(process._inner)
        with contextlib.suppress(ProcessLookupError):
            os.kill(popen.pid, signal.SIGCONT)

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        if process._inner is not None:
            loop.remove_reader(process._inner)
            os.close(process._inner)
            process._inner = None
        process.returncode = popen.wait()
        if not process._ended.done():
            process._ended.set_result(process.returncode)

    for pid in _children(popen.pid) if entered else [popen.pid]:
        with contextlib.suppress(OSError):
            process._inner = os.pidfd_open(pid)
            if entered:
                loop.add_reader(process._inner, inner_ended)
            break
    loop.add_reader(pidfd, ended)


def _terminal(multiplexer: str, owner: int, cols: int, rows: int) -> tuple[int, int]:
    """Return both ends of a new terminal."""
    master = os.open(multiplexer, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        if os.geteuid() == 0:
            os.fchown(slave, owner, -1)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    except BaseException:
        os.close(master)
        raise
    return master, slave


async def _reader(process: Process, descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=READ_LIMIT)
    pipe = os.fdopen(descriptor, "rb", 0)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _TerminalEnd(reader), pipe)
    except BaseException:
        pipe.close()
        raise
    process._transports.append(transport)
    return reader


class _TerminalEnd(asyncio.StreamReaderProtocol):
    """Takes the error that reading a terminal without a process gives (EIO) for the end that it is."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None if isinstance(exc, OSError) else exc)


async def _read_line(descriptor: int) -> str:
    """Return what a process writes to a pipe before it closes it."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    line = b""
    try:
        while not line.endswith(b"\n"):
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, _settle, ready)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
            piece = os.read(descriptor, 64)
            if not piece:
                break
            line += piece
    finally:
        os.close(descriptor)
    return line.decode().strip()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (OSError, ValueError):
        return []
