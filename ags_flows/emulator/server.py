"""The emulator inside a Python program: one server in a thread, gone when the block ends."""

from __future__ import annotations

import asyncio
import atexit
import errno
import fcntl
import ipaddress
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from .application import Application
from .controls import Controls
from .gateway import Gateway, StreamFaults
from .journal import Journal
from .levers import Levers
from .target import signer_of, targets_of
from .world.machine import Launch, SandboxMachine
from .world.settings import API_KEY, DEFAULT_REGION, SECRET_ID, SECRET_KEY, Settings
from .world.world import World

Json = dict[str, Any]
logger = logging.getLogger("ags_flows.emulator")

#: The port that the command line uses unless it is told another.
DEFAULT_PORT = 8600
_BACKLOG = 4096
_PREFIX = "ags-emulator-"
_YOUNG = 60.0


class Emulator(Levers):
    """AGS on this machine.

    Use it as a context manager, or call `start` and `stop`. While it runs, its attributes and the methods that it has
    from `Levers` may be used from any thread::

        with Emulator() as emulator:
            emulator.fault("lost", "StartSandboxInstance")

    Args:
        port: The port on the loopback interface; 0 takes a free one.
        host: A loopback address.
        state: A directory in which everything survives the emulator; None keeps nothing.
        volumes: A directory that stands for buckets, file systems and images, see `world.mounts`; by default one
            beside the sandboxes' files.
        secret_id: The key id that the Cloud API accepts.
        secret_key: The secret to it.
        api_key: The key that E2B's API accepts.
        region: Where E2B clients create sandboxes.
        quotas: Whether quotas are enforced (10 running instances and so on).
        rates: Whether request rates are enforced.
        strict_roles: Whether images of enterprise and personal registries need RoleArn.
        token_lifetime: Seconds for which an acquired access token is good.
        retention: Seconds for which a stopped instance stays listed.
        envd_version: The version of envd that E2B clients are told.
        host_ports: Ports of this machine that sandboxes reach at their own loopback interface.
        launch: Starts a sandbox; replaced where only records are measured.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        state: Path | str | None = None,
        volumes: Path | str | None = None,
        secret_id: str = SECRET_ID,
        secret_key: str = SECRET_KEY,
        api_key: str = API_KEY,
        region: str = DEFAULT_REGION,
        quotas: bool = False,
        rates: bool = False,
        strict_roles: bool = False,
        token_lifetime: float = 12 * 3600.0,
        retention: float = 3600.0,
        envd_version: str = "0.6.13",
        host_ports: Sequence[int] = (),
        launch: Launch = SandboxMachine.launch,
    ) -> None:
        """Keep the settings; nothing runs before `start`.

        Raises:
            ValueError: when host is not a loopback address.
        """
        if host != "localhost" and not _is_loopback(host):
            raise ValueError(f"the emulator listens on loopback only, not on {host!r}")
        self.host = host
        self.port = port
        self.secret_id = secret_id
        self.secret_key = secret_key
        self.api_key = api_key
        self.region = region
        self.state = Path(state).resolve() if state is not None else None
        self.volumes = Path(volumes).resolve() if volumes is not None else None
        self._limits = {"quotas": quotas, "rates": rates}
        self._more: Json = {
            "strict_roles": strict_roles,
            "token_lifetime": token_lifetime,
            "retention": retention,
            "envd_version": envd_version,
            "host_ports": tuple(host_ports),
        }
        super().__init__()
        self._launch = launch
        self._thread: threading.Thread | None = None
        self._over: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._lock: int | None = None
        self._leaves = False

    # Its life.

    def start(self) -> Emulator:
        """Start to serve; returns when requests are answered.

        Raises:
            OSError: when the port is taken or the state directory is in use by another emulator.
            RuntimeError: when it runs already.
        """
        if self._thread is not None:
            raise RuntimeError("this emulator runs already")
        directory = self._directory()
        try:
            listener = _listen(self.host, self.port)
        except BaseException:
            self._release(directory)
            raise
        self.port = listener.getsockname()[1]
        settings = Settings(
            directory=directory,
            volumes=self.volumes or directory / "volumes",
            keep=self.state is not None,
            secret_id=self.secret_id,
            secret_key=self.secret_key,
            api_key=self.api_key,
            region=self.region,
            **self._more,
        )
        self._failure, self._leaves = None, False
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(settings, listener, ready), name="ags-emulator", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            self._thread = None
            self._release(directory)
            raise self._failure
        atexit.register(self.stop)
        return self

    def stop(self, *, leave: bool = False) -> None:
        """Stop to serve, and end all sandboxes; idempotent.

        Args:
            leave: Whether sandboxes that run go on, at most until their timeouts, for the next emulator with the same
                state directory to take over. For a process that ends now.
        """
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        self._thread, self._leaves = None, leave
        atexit.unregister(self.stop)
        over = self._over
        if over is not None:
            loop.call_soon_threadsafe(over.set)
        thread.join()
        self._loop = self._over = self._controls = None
        self._release(None)

    def __enter__(self) -> Emulator:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    # Where it is.

    @property
    def url(self) -> str:
        """The address of everything: the Cloud API, E2B's API and the sandboxes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def domain(self) -> str:
        """Ports of sandboxes are reached at ``http://{port}-{instance}.{domain}``, where the system resolves it."""
        return f"localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes clients of AGS and of E2B use this emulator."""
        return {
            "AGS_ENDPOINT": self.url,
            "TENCENTCLOUD_SECRET_ID": self.secret_id,
            "TENCENTCLOUD_SECRET_KEY": self.secret_key,
            "E2B_API_KEY": self.api_key,
            "E2B_API_URL": self.url,
            "E2B_SANDBOX_URL": self.url,
        }

    # The inside.

    def _run(self, settings: Settings, listener: socket.socket, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(settings, listener, ready))
        except BaseException as error:
            self._failure = error
            if ready.is_set():
                logger.exception("the emulator ended")
        finally:
            listener.close()
            ready.set()

    async def _serve(self, settings: Settings, listener: socket.socket, ready: threading.Event) -> None:
        world = World(settings, self._launch)
        world.limits.change(self._limits)
        journal = Journal()
        streams = StreamFaults()
        gateway = Gateway(targets_of(world), streams, signer_of(world))
        controls = Controls(world, streams, journal)
        server = uvicorn.Server(
            uvicorn.Config(
                Application(world, gateway, controls, journal, self.domain),
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                ws="websockets-sansio",
                ws_max_size=2**30,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )
        await world.open()
        self._loop, self._controls = asyncio.get_running_loop(), controls
        self._over = over = asyncio.Event()
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.001)
            ready.set()
            leaving = asyncio.ensure_future(over.wait())
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        finally:
            # Sandboxes first: it ends the streams, which would otherwise hold up the server's end.
            streams.clear()
            await world.close(leave=self._leaves)
            server.should_exit = True
            await serving

    def _directory(self) -> Path:
        if self.state is None:
            _sweep()
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _locked(directory)
            return directory
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(self.state)
        if self._lock is None:
            raise OSError(errno.EBUSY, f"the state directory {self.state} is in use by another emulator")
        return self.state

    def _release(self, directory: Path | None) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if directory is not None and self.state is None:
            shutil.rmtree(directory, ignore_errors=True)


def _locked(directory: Path) -> int | None:
    """Return a descriptor that holds a directory for this emulator, or None when another one holds it."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _sweep() -> None:
    """Remove the temporary directories of emulators that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            # One that has just been made may not be locked yet.
            if time.time() - directory.stat().st_mtime < _YOUNG or directory.stat().st_uid != os.geteuid():
                continue
            lock = _locked(directory)
        except OSError:
            continue
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: without it each answer took 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener
