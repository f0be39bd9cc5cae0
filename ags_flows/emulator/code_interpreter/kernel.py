"""One live Jupyter kernel in a sandbox, reached through its ports there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ags_flows.emulator.code_interpreter.execution import Execution
from ags_flows.emulator.code_interpreter.languages import CONNECTION_FILE, MARK, Recipe
from ags_flows.emulator.code_interpreter.relay import Relay
from ags_flows.emulator.sandbox.plain import PlainSandbox

START_TIMEOUT = 60.0
USER = "user"

_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_OUTPUT = ("stream", "execute_result", "display_data", "update_display_data")
_END_TIMEOUT = 5.0
_KEPT = 4096
_WAITING = 1_000
"""Messages of a kernel that wait here to be read. More wait in the kernel."""

# In a new session, so that an interrupt reaches its child processes; its directory may be missing.
_START = 'cd -- "$0" 2>/dev/null; exec {session}"$@"'


class KernelFailed(Exception):
    """A kernel did not start. The message has its output."""


class Kernel:
    """A kernel. Use `start`."""

    def __init__(self, sandbox: Any, recipe: Recipe) -> None:
        self._sandbox = sandbox
        self._recipe = recipe
        self._name = f"kernel-{uuid.uuid4().hex[:12]}"
        self._place = f"/tmp/.{self._name}"
        self._process: Any = None
        self._client: Any = None
        self._directory = -1
        self._relays: list[Relay] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, Execution] = {}
        # Executions whose output comes in their order: messages may name another request.
        self._marked: list[Execution] = []
        self._markers: dict[str, Execution] = {}
        self._said = bytearray()
        self._ready = asyncio.Event()
        self._closing: BaseException | None = None
        self._closed = False

    @classmethod
    async def start(cls, sandbox: Any, recipe: Recipe, *, cwd: str, env: Mapping[str, str], context: Any) -> Kernel:
        """Return a kernel that takes requests.

        Args:
            sandbox: Where.
            recipe: What to start.
            cwd: Its working directory; the home if there is no such directory.
            env: Its environment.
            context: Of ZeroMQ.

        Raises:
            KernelFailed: It did not start.
            OSError: The sandbox has ended, or its disk is full.
        """
        kernel = cls(sandbox, recipe)
        try:
            await asyncio.wait_for(kernel._start(cwd, env, context), START_TIMEOUT)
        except asyncio.TimeoutError:
            await kernel.close(KernelFailed("it did not start"))
            raise KernelFailed(f"it did not reply within {START_TIMEOUT:g} seconds. {kernel._tail()}") from None
        except BaseException as error:
            await kernel.close(error)
            raise
        return kernel

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._closing is None and self._process is not None and self._process.returncode is None

    @property
    def interruptible(self) -> bool:
        """Whether a request can be interrupted, and not only ended with the kernel."""
        return self._recipe.interrupt is not None

    def submit(self, code: str, *, silent: bool = False) -> Execution:
        """Send code; it is executed after what was sent before.

        Args:
            code: The code.
            silent: Whether it counts and shows nothing.

        Raises:
            ConnectionError: The kernel has ended.
        """
        if not self.alive:
            raise ConnectionError("the kernel has ended")
        mark = f"\x1e{uuid.uuid4().hex}\x1e" if self._recipe.mark is not None and not silent else None
        return self.send(Execution(code, silent=silent, mark=mark))

    def send(self, execution: Execution) -> Execution:
        """Send a request, or send it again: one that a kernel has skipped or left."""
        silent = execution.silent
        number = self._client.execute(
            execution.code, silent=silent, store_history=not silent, allow_stdin=False, stop_on_error=False
        )
        self._running[number] = execution
        execution.forget, execution.kernel = self._forget, self
        if execution.mark is not None and self._recipe.mark is not None:
            self._marked.append(execution)
            code = self._recipe.mark.replace(MARK, json.dumps(execution.mark))
            self._markers[self._client.execute(code, silent=True, store_history=False, allow_stdin=False)] = execution
        return execution

    def leave(self) -> list[Execution]:
        """Forget the requests that the kernel has not begun, and return them."""
        waiting = [each for each in self._running.values() if not each.began.is_set()]
        for each in waiting:
            self._forget(each)
        return waiting

    def _forget(self, execution: Execution) -> None:
        for number in [each for each, running in self._running.items() if running is execution]:
            del self._running[number]
        if execution in self._marked:
            self._marked.remove(execution)

    async def interrupt(self) -> None:
        """Interrupt what it executes."""
        if not self.alive:
            return
        if self._recipe.interrupt == "signal":
            await self._signal("INT")
        else:
            message = self._client.session.msg("interrupt_request", {})
            self._client.control_channel.send(message)

    async def close(self, reason: BaseException, *, with_sandbox: bool = False) -> None:
        """End it. Idempotent.

        Args:
            reason: The error that ends its executions.
            with_sandbox: Whether the sandbox ends next, and with it all that the kernel started.
        """
        if self._closed:
            return
        self._closed = True
        self._stop_taking(reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._client.stop_channels()
        for relay in self._relays:
            await relay.close()
        if self._directory >= 0:
            os.close(self._directory)
        if self._process is not None:
            await self._kill(with_sandbox or not self._sandbox.alive)

    async def _kill(self, with_sandbox: bool) -> None:
        if not with_sandbox:
            await self._signal("KILL")
        self._process.signal(signal.SIGKILL)
        if not with_sandbox:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_TIMEOUT)
            with suppress(OSError):
                await asyncio.to_thread(self._sandbox.files.remove, self._place)
        self._process.release()

    # Its start.

    async def _start(self, cwd: str, env: Mapping[str, str], context: Any) -> None:
        ports = await asyncio.to_thread(self._free_ports)
        key = uuid.uuid4().hex
        connection: dict[str, Any] = {f"{name}_port": port for name, port in zip(_CHANNELS, ports, strict=True)}
        connection |= {"ip": "127.0.0.1", "transport": "tcp", "key": key, "signature_scheme": "hmac-sha256"}
        await asyncio.to_thread(self._write, json.dumps(connection))
        plain = isinstance(self._sandbox, PlainSandbox)
        place = f"{self._sandbox.spec.directory}/root{self._place}" if plain else self._place
        argv = [argument.replace(CONNECTION_FILE, f"{place}/connection.json") for argument in self._recipe.argv]
        session = "" if plain or shutil.which("setsid") is None else "setsid "
        own = {"IPYTHONDIR": f"{place}/ipython", "JUPYTER_RUNTIME_DIR": place}
        self._process = await self._sandbox.spawn(
            ["/bin/sh", "-c", _START.format(session=session), cwd, *argv],
            user=USER,
            env={**env, **own, **self._recipe.env},
            stdin="null",
        )
        self._tasks += [
            asyncio.ensure_future(self._drain(self._process.stdout)),
            asyncio.ensure_future(self._drain(self._process.stderr)),
        ]
        await self._listening(ports[0])
        await self._connect(connection, context)
        self._tasks.append(asyncio.ensure_future(self._watch()))

    def _free_ports(self) -> list[int]:
        listeners = [self._sandbox.listen(0) for _ in _CHANNELS]
        try:
            return [int(listener.getsockname()[1]) for listener in listeners]
        finally:
            for listener in listeners:
                listener.close()

    def _write(self, text: str) -> None:
        files, owner = self._sandbox.files, self._sandbox.owner(USER)
        files.make_directories(self._place, owner)
        with os.fdopen(files.create(f"{self._place}/connection.json", owner), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)

    async def _listening(self, port: int) -> None:
        while True:
            if self._process.returncode is not None:
                # Its last output may still be on the way.
                await asyncio.sleep(0.1)
                raise KernelFailed(f"it ended with code {self._process.returncode}. {self._tail()}")
            try:
                (await asyncio.to_thread(self._sandbox.connect, port)).close()
                return
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)

    async def _connect(self, connection: dict[str, Any], context: Any) -> None:
        from jupyter_client.asynchronous.client import AsyncKernelClient

        # By a descriptor, since the path of a Unix socket may have 107 bytes only.
        self._directory = os.open(self._sandbox.spec.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        prefix = f"/proc/self/fd/{self._directory}/{self._name}"
        for number, name in enumerate(_CHANNELS, 1):
            if name in ("shell", "iopub", "control"):
                port = connection[f"{name}_port"]
                self._relays.append(await Relay.open(self._sandbox, f"{prefix}-{number}", port))
        client: Any = AsyncKernelClient(context=context)
        self._client = client
        numbers = {f"{name}_port": number for number, name in enumerate(_CHANNELS, 1)}
        client.load_connection_info({**connection, **numbers, "transport": "ipc", "ip": prefix})
        # Of the sockets that are made next.
        context.rcvhwm = _WAITING
        client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=True)
        self._tasks += [
            asyncio.ensure_future(self._read(client.iopub_channel)),
            asyncio.ensure_future(self._read(client.shell_channel)),
            asyncio.ensure_future(self._read(client.control_channel)),
        ]
        # Its output arrives only after it has accepted our subscription: send requests until a reply comes that way.
        pause = 0.02
        while not self._ready.is_set():
            client.kernel_info()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ready.wait(), pause)
            pause = min(1.0, pause * 1.5)
            if self._process.returncode is not None:
                raise KernelFailed(f"it ended with code {self._process.returncode}. {self._tail()}")

    # Its life.

    async def _read(self, channel: Any) -> None:
        """Hand on what comes on a channel."""
        while True:
            try:
                message = await channel.get_msg()
            except (ValueError, KeyError, TypeError):
                # Not signed with our key, or not a message.
                continue
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "status":
            self._ready.set()
        number = message.get("parent_header", {}).get("msg_id")
        if kind in _OUTPUT and self._recipe.mark is not None:
            if self._marked:
                self._marked[0].take(kind, content)
        elif number in self._markers:
            if kind == "execute_reply":
                self._markers.pop(number).answered()
        elif (execution := self._running.get(number)) is not None:
            if kind == "execute_reply" and content.get("status") == "aborted":
                # R skips what waits when a request before it fails or is interrupted.
                del self._running[number]
                self.send(execution)
            else:
                execution.take(kind, content)

    async def _watch(self) -> None:
        code = await self._process.wait()
        told = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stop_taking(ConnectionError(told))

    def _stop_taking(self, reason: BaseException) -> None:
        if self._closing is None:
            self._closing = reason
        for execution in list(self._running.values()):
            execution.end(self._closing)

    async def _drain(self, stream: Any) -> None:
        while data := await stream.read(32768):
            self._said += data
            del self._said[:-_KEPT]

    def _tail(self) -> str:
        return self._said.decode(errors="replace").strip()

    async def _signal(self, name: str) -> None:
        """Send a signal to it and to all that it started and that stayed in its group."""
        command = [
            "/bin/sh",
            "-c",
            f'kill -s {name} -- "-$0" 2>/dev/null || kill -s {name} "$0"',
            str(self._process.pid),
        ]
        with suppress(OSError):
            process = await self._sandbox.spawn(command, user=USER)
            await process.wait()
            process.release()
