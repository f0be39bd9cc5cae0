"""The emulator inside a Python program: one server in a thread, gone when the block ends."""

from __future__ import annotations

import asyncio
import atexit
import errno
import fcntl
import logging
import os
import socket
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from ags_flows.emulator.application import Application
from ags_flows.emulator.connection import end
from ags_flows.emulator.controls import Controls
from ags_flows.emulator.gateway import Gateway, StreamFaults
from ags_flows.emulator.journal import Journal
from ags_flows.emulator.levers import Levers
from ags_flows.emulator.listening import BACKLOG, Doorman, is_loopback, listen
from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.target import signer_of, targets_of
from ags_flows.emulator.tls import Authority
from ags_flows.emulator.world.machine import Launch, Machine
from ags_flows.emulator.world.profile import read_profile
from ags_flows.emulator.world.settings import HIGHEST_PORT, Settings
from ags_flows.emulator.world.world import World

logger = logging.getLogger("ags_flows.emulator")

DEFAULT_PORT = 8600
"""The default port of the command line."""

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
        host: A loopback IP address or name.
        state: A directory in which everything survives the emulator; None keeps nothing.
        volumes: A directory that stands for buckets, file systems and images, see `world.mounts`; by default one
            beside the sandboxes' files.
        launch: Starts a sandbox; replaced where only records are measured.
        **settings: Fields of `world.settings.Settings`, such as ``tls=True``, ``start="at-once"``, ``quotas=True``; of
            ``profile`` the file.

    Raises:
        ValueError: host is not on the loopback interface, volumes is not a directory, or another argument has a wrong
            value.
        TypeError: There is no such setting.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        state: Path | str | None = None,
        volumes: Path | str | None = None,
        launch: Launch = Machine.launch,
        **settings: Any,
    ) -> None:
        if not is_loopback(host):
            raise ValueError(f"the emulator listens on loopback only, not on {host!r}")
        if not 0 <= port <= HIGHEST_PORT:
            raise ValueError(f"port must be 0 to {HIGHEST_PORT}, got {port}")
        self.host = host
        self.port = port
        self.state = Path(state).resolve() if state is not None else None
        self.volumes = Path(volumes).resolve() if volumes is not None else None
        if self.volumes is not None and not self.volumes.is_dir():
            raise ValueError(f"volumes: {self.volumes} is not a directory")
        if "profile" in settings:
            settings["profile"] = read_profile(settings["profile"])
        # Its directories are known at the start only.
        self.settings = Settings(directory=Path(), volumes=Path(), keep=self.state is not None, **settings)
        super().__init__()
        self._launch = launch
        self._authority: Authority | None = None
        self._thread: threading.Thread | None = None
        self._over: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._lock: int | None = None
        self._leaves = False

    # Its life.

    def start(self) -> Emulator:
        """Start to serve; return when requests are served.

        Raises:
            OSError: when the port is taken or the state directory is in use by another emulator.
            RuntimeError: when it runs already.
        """
        if self._thread is not None:
            raise RuntimeError("this emulator runs already")
        directory = self._directory()
        try:
            listener = listen(self.host, self.port)
        except BaseException:
            self._release(directory)
            raise
        self.port = listener.getsockname()[1]
        settings = replace(self.settings, directory=directory, volumes=self.volumes or directory / "volumes")
        self._authority = Authority(directory / "tls") if settings.tls else None
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
    def secret_id(self) -> str:
        """The key id that the Cloud API accepts."""
        return self.settings.secret_id

    @property
    def secret_key(self) -> str:
        """The secret to it."""
        return self.settings.secret_key

    @property
    def api_key(self) -> str:
        """The key that E2B's API accepts."""
        return self.settings.api_key

    @property
    def region(self) -> str:
        """Where E2B clients create sandboxes."""
        return self.settings.region

    @property
    def url(self) -> str:
        """The URL of everything: the Cloud API, E2B's API and the sandboxes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.settings.tls else 'http'}://{host}:{self.port}"

    @property
    def domain(self) -> str:
        """Ports of sandboxes are reached at ``http(s)://{port}-{instance}.{domain}``, where the system resolves it."""
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
            **self.trust,
        }

    @property
    def trust(self) -> dict[str, str]:
        """The variables that make clients trust its certificates; empty without TLS."""
        if self._authority is None:
            return {}
        files = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        return {"E2B_DOMAIN": self.domain, **dict.fromkeys(files, str(self._authority.bundle))}

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
        world.limits.change({"quotas": settings.quotas, "rates": settings.rates})
        journal = Journal()
        streams = StreamFaults()
        gateway = Gateway(targets_of(world), world.profile, streams, signer_of(world), world.forgotten_of_e2b)
        controls = Controls(world, streams, journal)
        server = uvicorn.Server(
            uvicorn.Config(
                Application(world, gateway, controls, journal, self.domain),
                loop="asyncio",
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                ws="websockets-sansio",
                ws_max_size=2**30,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )
        await world.open()
        self._loop, self._controls = asyncio.get_running_loop(), controls
        self._over = over = asyncio.Event()
        plain = self._authority is None
        serving = asyncio.ensure_future(server.serve(sockets=[listener] if plain else []))
        entering = None
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.001)
            if self._authority is not None and server.started:
                doorman = Doorman(listener, partial(_protocol, server), self._authority.context())
                entering = asyncio.ensure_future(doorman.run())
            ready.set()
            leaving = asyncio.ensure_future(over.wait())
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        finally:
            # Sandboxes first: it ends the streams, which would otherwise hold up the server's end.
            streams.clear()
            await world.close(leave=self._leaves)
            if entering is not None:
                entering.cancel()
                await asyncio.wait([entering])
            server.should_exit = True
            await _served(server, serving)

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
            remove_tree(directory)


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
            remove_tree(directory)
            os.close(lock)


async def _served(server: uvicorn.Server, serving: asyncio.Future[None]) -> None:
    """Wait for the end of the server; abort TLS connections whose clients do not close them."""
    while not serving.done():
        await asyncio.wait([serving], timeout=0.05)
        for connection in list(server.server_state.connections):
            transport = connection.transport
            if transport.is_closing() and transport.get_extra_info("sslcontext") is not None:
                end(transport)
    await serving


def _protocol(server: uvicorn.Server) -> asyncio.Protocol:
    """Return the protocol of a connection that the server has not accepted itself."""
    protocol: asyncio.Protocol = server.config.http_protocol_class(  # type: ignore[call-arg]
        config=server.config, server_state=server.server_state, app_state={}
    )
    return protocol
