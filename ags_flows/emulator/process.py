"""The emulator as a separate process: what ``ags-flows emulator`` runs."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ags_flows.emulator.server import DEFAULT_PORT, Emulator

_MANY = 65536


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    state: Path | str | None = None,
    env_file: Path | str | None = None,
    quiet: bool = False,
    *,
    volumes: Path | str | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> int:
    """Run an emulator until SIGINT or SIGTERM; must be called in the main thread.

    Args:
        host: A loopback IP address or name.
        port: The port; 0 takes a free one.
        state: Where everything survives the process; None keeps nothing.
        env_file: Where to write the ``export`` lines once the emulator serves requests (mode 0600).
        quiet: Whether to leave out the line for each request.
        volumes: What stands for buckets, file systems and images.
        say: Writes one line; by default to standard output.
        **settings: More settings, as `Emulator` takes them: `tls`, `start`, `retention`, `profile`, ...

    Returns:
        The exit code: 0 after a signal, 1 when it could not start.
    """
    tell = say or _say
    _allow_many_connections()
    try:
        emulator = Emulator(port, host=host, state=state, volumes=volumes, **settings)
        with _signals() as over, _log(tell, logging.WARNING if quiet else logging.INFO):
            with emulator:
                lines = exports(emulator.environment)
                if env_file is not None:
                    write_private(Path(env_file), lines)
                for line in _greeting(emulator, lines, env_file):
                    tell(line)
                over.wait()
                tell(_farewell(emulator))
                emulator.stop(leave=True)
    except OSError as error:
        _complain(_explained(error, host, port))
        return 1
    except ValueError as error:
        _complain(str(error))
        return 1
    return 0


def exports(environment: dict[str, str]) -> str:
    """Return the environment as lines that a shell can read."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises:
        OSError: when it cannot be written. It names the path.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _greeting(emulator: Emulator, lines: str, env_file: Path | str | None) -> Iterator[str]:
    yield f"AGS emulator: {emulator.url} (status page, Cloud API, E2B API, sandboxes)"
    yield ""
    yield from lines.splitlines()
    yield ""
    if env_file is not None:
        yield f"These lines are in {env_file}: run `source {shlex.quote(str(env_file))}`."
    if emulator.settings.tls:
        yield "TLS: these variables make clients trust it; http is spoken on the same port"
        if not _resolves("1-name.localhost"):
            yield (
                "The system does not resolve names below localhost, so Node, httpx and requests cannot connect to the "
                "host of a port. "
                "On Debian and Ubuntu: apt-get install libnss-myhostname"
            )
    if emulator.state is not None:
        yield f"State: {emulator.state} (survives a restart, and so do running sandboxes)"
    else:
        yield "State: in memory and a temporary directory, gone at the end (--state DIR keeps it)"
    for sentence in _missing_isolation():
        yield f"Isolation: {sentence}"
    yield "It is not a security boundary: run only code that you would run yourself. Ctrl-C stops it."


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def _farewell(emulator: Emulator) -> str:
    until = [
        instance["ExpiresAt"]
        for region in emulator.overview()["regions"].values()
        for instance in region["instances"]
        if instance["Status"] == "RUNNING"
    ]
    if emulator.state is None or not until:
        return "Stopping: all sandboxes end now."
    who = "1 running sandbox goes" if len(until) == 1 else f"{len(until)} running sandboxes go"
    return (
        f"Stopping: {who} on, at most until {max(until)}. "
        f"The next emulator with this state takes over; to end what runs, remove {emulator.state}."
    )


def _missing_isolation() -> tuple[str, ...]:
    from ags_flows.emulator.sandbox import isolation

    return isolation().limits


def _explained(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; choose another with --port, or stop what uses it"
    if error.errno == errno.EACCES and not error.filename:
        return f"port {port} of {host} may only be used by root; choose one above 1023 with --port"
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: every connection and every sandbox takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else min(_MANY, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Set the event on SIGINT or SIGTERM."""
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _log(tell: Callable[[str], None], least: int) -> Iterator[None]:
    """Write the emulator's log: one line for each request, and what went wrong."""
    logger = logging.getLogger("ags_flows.emulator")
    handler = _Lines(tell)
    handler.setLevel(least)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Lines(logging.Handler):
    """A log handler that writes lines through a function."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(self.format(record))
        except (OSError, ValueError):
            # The reader of the log has gone; the emulator goes on.
            pass


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(f"ags-flows emulator: {line}\n")
    sys.stderr.flush()
