"""What runs in a sandbox beside many calls: it executes each in a fork of itself, which costs less than a new Python.

For a call it is what the supervisor is for another durable command: it gets the journal that the start script has
claimed, and writes the same files, with the same meaning (see `ags_flows.durable.scripts`). Standard library alone,
for every Python from 3.8 on; the client sends the text of this file.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

GRACE = 5.0
"""Seconds between TERM and KILL."""

PAUSE = 5.0
"""If more seconds pass between two looks, the sandbox was paused. The time limit counts them as one."""

CALL = b"AGS_CALL="
"""How the line of a command begins that has the call, as the shell quotes it."""


class Running:
    """A call that is executed.

    Args:
        pid: Its process, which leads its process group.
        directory: Its journal.
        limit: Its time limit in seconds; 0 means no limit.
        output: The most bytes that it may write.
    """

    def __init__(self, pid: int, directory: str, limit: str, output: int) -> None:
        self.pid = pid
        self.directory = directory
        self.limit = limit
        self.seconds = float(limit)
        self.output = output
        self.spent = 0.0
        self.looked = time.monotonic()
        self.killed: float | None = None

    def due(self) -> float:
        """Return the time of the next look: in a second, or at the time limit."""
        left = self.seconds - self.spent if self.seconds and self.killed is None else 1.0
        return self.looked + min(1.0, left)

    def look(self) -> None:
        """Enforce the limits; called when it is due."""
        now = time.monotonic()
        passed, self.looked = now - self.looked, now
        self.spent += 1.0 if passed > PAUSE else passed
        if self.killed is not None:
            if now - self.killed >= GRACE:
                self.signal(signal.SIGKILL)
            return
        try:
            written = sum(os.stat(os.path.join(self.directory, name)).st_size for name in ("out", "err"))
        except OSError:
            # The journal was removed.
            written = 0
        if self.seconds and self.spent >= self.seconds:
            self.kill("timeout " + self.limit)
        elif written > self.output:
            self.kill("output " + str(self.output))

    def kill(self, why: str) -> None:
        """End the call for a reason."""
        write(self.directory, "why", why)
        self.killed = time.monotonic()
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        try:
            os.killpg(self.pid, number)
        except OSError:
            pass

    def end(self, status: int) -> None:
        """Record the end of the process."""
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        try:
            with open(os.path.join(self.directory, "why")) as file:
                why = file.readline().strip()
        except OSError:
            why = ""
        if why:
            self.signal(signal.SIGKILL)
            kill_strays(os.path.basename(self.directory))
        for _ in range(12):
            try:
                write(self.directory, "reserve", "", end="")
                write(self.directory, "rc", str(code) + " " + why)
                return
            except FileNotFoundError:
                # The journal was removed.
                return
            except OSError:
                # The disk is full.
                time.sleep(5)


def write(directory: str, name: str, text: str, end: str = "\n") -> None:
    """Write a file of a journal."""
    with open(os.path.join(directory, name), "w") as file:
        file.write(text + end)


def identity(pid: int) -> str:
    """Return a process id and the start time of the process."""
    with open("/proc/" + str(pid) + "/stat") as file:
        return str(pid) + " " + file.read().rpartition(") ")[2].split()[19]


def kill_strays(name: str) -> None:
    """Kill what has left the process group of a call, and has its environment."""
    mark = ("AGS_FLOWS_JOURNAL=" + name).encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open("/proc/" + entry + "/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        os.kill(int(entry), signal.SIGKILL)
            except OSError:
                continue


def call_of(directory: str) -> str:
    """Return the call in a command: a word in single quotes, in which a quote is a separate word in double ones."""
    with open(os.path.join(directory, "cmd"), "rb") as file:
        line = next(line for line in file if line.startswith(CALL))
    word = line[len(CALL) :].strip().decode()
    return word[1:-1].replace("'\"'\"'", "'")


def begin(directory: str, limit: str, output: int) -> Running | str | None:
    """Execute a call in a new process, and return it, None if it is not to be started. That process gets the call."""
    try:
        os.close(os.open(os.path.join(directory, "claim"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    write(directory, "pid", identity(os.getpid()))
    # Space for the exit code, in case the disk is full at the end.
    write(directory, "reserve", " " * 4096, end="")
    text = call_of(directory)
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    files = [os.open(os.path.join(directory, name), flags, 0o600) for name in ("out", "err")]
    pid = os.fork()
    if not pid:
        os.setsid()
        os.environ["AGS_FLOWS_JOURNAL"] = os.path.basename(directory)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
    for file in files:
        os.close(file)
    if not pid:
        return text
    write(directory, "child", identity(pid))
    return Running(pid, directory, limit, output)


def serve(directory: str) -> str:
    """Execute calls until the sandbox ends. Return only in the process of a call: the call."""
    calls = os.open(os.path.join(directory, "calls"), os.O_RDWR | os.O_NONBLOCK)
    ended, ending = os.pipe()
    for end in (ended, ending):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ending, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    write(directory, "pid", identity(os.getpid()))
    running: dict[int, Running] = {}
    rest = b""
    while True:
        due = min((one.due() for one in running.values()), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        ready = select.select([calls, ended], [], [], wait)[0]
        if ended in ready:
            os.read(ended, 4096)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid in running:
                running.pop(pid).end(status)
        for one in running.values():
            if time.monotonic() >= one.due():
                one.look()
        if calls not in ready:
            continue
        *lines, rest = (rest + os.read(calls, 65536)).split(b"\n")
        for line in lines:
            limit, output, journal = line.decode().split(" ", 2)
            try:
                begun = begin(journal, limit, int(output))
            except OSError as error:
                # Its client finds that it did not begin.
                print(error, file=sys.stderr)
                continue
            if isinstance(begun, str):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (calls, ended, ending):
                    os.close(number)
                return begun
            if begun is not None:
                running[begun.pid] = begun


def leave(code: int) -> NoReturn:
    """End the process of a call as Python ends, but free no memory: what it shares with the runner would be copied.

    Args:
        code: The exit code.
    """
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    try:
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - Python 3.9 and earlier have printed it
        pass
    files = [one for one in gc.get_objects() if type(one) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)]
    for file in (*files, sys.stdout, sys.stderr):
        try:
            file.flush()
        except Exception:  # noqa: BLE001 - the function may have closed it
            continue
    os._exit(code)


def main(*scripts: str, call: str, directory: str) -> int:
    """Execute a call, or all that come, each in a new process.

    Args:
        scripts: What executes a call, as one module.
        call: The call.
        directory: Where calls come; empty for this call alone.
    """
    sys.argv = ["-c"]
    os.environ.pop("AGS_FLOWS_RUNNER", None)
    # Its classes can be pickled.
    module = sys.modules["__ags_guest__"] = type(sys)("__ags_guest__")
    scope = vars(module)
    for script in scripts:
        exec(compile(script, "<guest>", "exec"), scope)
    if not directory:
        return int(scope["main"](call))
    # The collector does not write to what exists now: no call copies it.
    getattr(gc, "freeze", gc.collect)()
    leave(int(scope["main"](serve(directory))))


if __name__ == "__main__":
    _, *scripts, call, directory = sys.argv[1:]
    sys.exit(main(*scripts, call=call, directory=directory))
