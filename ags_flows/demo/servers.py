"""The servers that the demo needs, as child processes: an emulator and a Prefect server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx

from ags_flows.errors import UnreachableError

EMULATOR_TIMEOUT = 60.0
PREFECT_TIMEOUT = 240.0
STOP_TIMEOUT = 20.0


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def child(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager that runs a child process, writes its output to a log, and ends its process group.

    The child has a separate session, so that Ctrl-C in the terminal reaches only this process, which then ends its
    children in order.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], first: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to a child, wait at most 20 seconds, and kill its process group."""
    if process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def emulator(directory: Path, *options: str) -> Iterator[dict[str, str]]:
    """Run `ags-flows emulator` on a free port with more options; yield the environment variables for its clients."""
    env_file, log = directory / "emulator.env", directory / "emulator.log"
    env_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ags_flows.cli", "emulator", "--port", "0", "--env-file", str(env_file), *options]
    with child(command, log, clean_environment()) as process:
        wait_for(env_file.exists, process, "The emulator", log, EMULATOR_TIMEOUT)
        yield read_exports(env_file)


@contextlib.contextmanager
def prefect_server(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a Prefect server on a free port; yield its process and URL without waiting until it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    # Without PREFECT_UI_API_URL, the UI in the browser would call the API at Prefect's default port.
    environment = {**prefect_environment(directory), "PREFECT_UI_API_URL": f"{url}/api"}
    with child(command, directory / "prefect-server.log", environment) as process:
        yield process, url


def wait_for_prefect(process: subprocess.Popen[bytes], url: str, directory: Path) -> None:
    """Wait until a Prefect server responds."""
    wait_for(
        lambda: _answers(f"{url}/api/health"),
        process,
        "The Prefect server",
        directory / "prefect-server.log",
        PREFECT_TIMEOUT,
    )


def prefect_environment(directory: Path) -> dict[str, str]:
    """Return an environment in which Prefect uses only files of the demo and sends no analytics."""
    return {
        **clean_environment(),
        "PREFECT_HOME": str(directory / "prefect"),
        "PREFECT_PROFILES_PATH": str(directory / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of Prefect and without keys and URLs of AGS and E2B.

    The demo must use neither a real account nor an existing Prefect server.
    """
    private = ("PREFECT_", "AGS_", "TENCENTCLOUD_", "E2B_")
    return {name: value for name, value in os.environ.items() if not name.startswith(private)}


def read_exports(file: Path) -> dict[str, str]:
    """Return the variables in a file of `export NAME=value` lines."""
    exports = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.removeprefix("export ").partition("=")
        if separator:
            exports[name.strip()] = value.strip().strip("'\"")
    return exports


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path, timeout: float) -> None:
    """Wait until a server is ready.

    Raises:
        UnreachableError: The process ended, or the server was not ready in time. The message has the end of its log.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            output = log.read_text(encoding="utf-8", errors="replace").strip()[-1_500:]
            how = "ended" if process.poll() is not None else f"was not ready after {timeout:.0f} s"
            raise UnreachableError(f"{what} {how}. The end of {log.name}:\n{output}")
        time.sleep(0.1)


def fresh_directory(directory: Path) -> Path:
    """Return an empty directory. Files of an earlier demo in it are removed.

    Raises:
        FileExistsError: The directory has files of something else.
    """
    marker = directory / ".ags-flows-demo"
    if directory.exists() and any(directory.iterdir()) and not marker.exists():
        raise FileExistsError(f"{directory} is not empty and not from a demo. Choose another one with --directory.")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    marker.touch()
    return directory.resolve()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
