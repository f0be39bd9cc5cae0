"""A live sandbox and what serves it: the processes, envd, the code interpreter."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from ags_flows.emulator.reach import EVERYWHERE, Reach
from ags_flows.emulator.world.mounts import Mount
from ags_flows.emulator.world.tokens import Tokens

if TYPE_CHECKING:
    from ags_flows.emulator.agent_server import AgentServer


@dataclass(frozen=True)
class Plan:
    """The description of a machine.

    Args:
        sandbox_id: The instance's id; its host name begins with it.
        directory: The machine's own directory on the host.
        tokens: The access tokens of its ports.
        seed: The saved file system to start from.
        image: What the image adds to a fresh file system.
        network: Which other machines it may reach.
        host_ports: Ports of this machine that it finds on its own loopback interface.
        has_prefect: Whether it has this program's Python with Prefect, as images of `prefecthq/prefect` have.
        storage_bytes: The size of its writable file system; None: as much as the host has.
        memory_bytes: Its memory limit; None: none.
        mounts: Host directories that appear in it.
        env: Environment of all its processes.
        interprets: Whether a code interpreter listens on port 49999.
        serves_agents: Whether an agent runtime listens on port 8000.
        envd_version: The version envd reports.
        keeper: Whose the machine is, when it outlives the emulator.
        adopted: Whether it runs already, left by an earlier emulator.
    """

    sandbox_id: str
    directory: Path
    tokens: Tokens
    seed: Path | None = None
    image: Path | None = None
    network: Reach = EVERYWHERE
    host_ports: tuple[int, ...] = ()
    has_prefect: bool = False
    storage_bytes: int | None = None
    memory_bytes: int | None = None
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    interprets: bool = False
    serves_agents: bool = False
    envd_version: str = "0.6.13"
    keeper: str | None = None
    adopted: bool = False


_TAIL = 8192


class MainProcess:
    """The command that an image's configuration asks for. Its output is drained, and the last of it is kept."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._kept = bytearray()
        self._readers = [
            asyncio.ensure_future(self._drain(stream))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    async def wait(self) -> int:
        """Return its exit code, negative for a signal."""
        code = int(await self._process.wait())
        if self._readers:
            await asyncio.wait(self._readers, timeout=0.2)
        return code

    def tail(self) -> str:
        """Return the end of its output."""
        return self._kept[-_TAIL:].decode(errors="replace").strip()

    def close(self) -> None:
        """Stop to read its output."""
        for reader in self._readers:
            reader.cancel()

    async def _drain(self, stream: Any) -> None:
        while True:
            data = await stream.read(32768)
            if not data:
                return
            self._kept += data
            del self._kept[: -2 * _TAIL]


class Machine:
    """A live sandbox, as the instances use it: a sandbox of this host with envd and, if asked, a code interpreter."""

    def __init__(self, plan: Plan, sandbox: Any, envd: Any, code: Any, agents: AgentServer | None) -> None:
        """Use `launch` instead."""
        self._agents = agents
        self._plan = plan
        self._sandbox = sandbox
        self._envd = envd
        self._code = code
        self._main: MainProcess | None = None
        self._stopped = False
        self.envd_app: ASGIApp = envd.app
        self.code_app: ASGIApp | None = code.app if code is not None else None

    @classmethod
    async def launch(cls, plan: Plan) -> Machine:
        """Start a machine.

        Raises:
            OSError: when the sandbox cannot be made.
        """
        # In a thread: these packages take half a second to import, once.
        await asyncio.to_thread(_import_parts, plan.interprets, plan.serves_agents)
        from ags_flows.emulator.envd import Envd
        from ags_flows.emulator.sandbox import Bind, Sandbox, SandboxSpec

        binds = tuple(Bind(mount.source, mount.target, mount.readonly) for mount in plan.mounts)
        if plan.interprets or plan.serves_agents or plan.has_prefect:
            from ags_flows.emulator.code_interpreter import interpreter_binds

            binds += interpreter_binds()
        if plan.has_prefect:
            from ags_flows.emulator.code_interpreter import prefect_binds

            binds += prefect_binds(plan.directory)
        sandbox: Any = await (Sandbox.adopt if plan.adopted else Sandbox.start)(
            SandboxSpec(
                sandbox_id=plan.sandbox_id,
                directory=plan.directory,
                network=plan.network,
                host_ports=plan.host_ports,
                storage_bytes=plan.storage_bytes,
                memory_bytes=plan.memory_bytes,
                binds=binds,
                hostname=plan.sandbox_id[:12],
                seed=plan.seed,
                image=plan.image,
                keeper=plan.keeper,
            )
        )
        try:
            code = agents = None
            if plan.serves_agents:
                from ags_flows.emulator.agent_server import AgentServer, has_agent_server

                agents = AgentServer(sandbox) if has_agent_server() else None
            if plan.interprets:
                from ags_flows.emulator.code_interpreter import CodeInterpreter

                code = CodeInterpreter(sandbox, env=dict(plan.env))
            envd = Envd(sandbox, access=plan.tokens, version=plan.envd_version, env=dict(plan.env))
            return cls(plan, sandbox, envd, code, agents)
        except BaseException:
            await sandbox.stop()
            raise

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port inside; blocking; ConnectionRefusedError when nothing listens."""
        try:
            connection: socket.socket = self._sandbox.connect(port)
        except ConnectionRefusedError:
            if self._agents is not None and port == self._agents.port:
                self._agents.wake()
            raise
        return connection

    async def run_main(self, argv: list[str], env: Mapping[str, str]) -> MainProcess:
        """Start the image's command as root, in the background."""
        process = await self._sandbox.spawn(
            argv, user="root", env={**self._plan.env, **env}, cwd="/", stdin="null", pty=None
        )
        self._main = MainProcess(process)
        return self._main

    async def freeze(self) -> None:
        """Freeze all processes."""
        await self._sandbox.freeze()

    async def thaw(self) -> None:
        """Continue them."""
        await self._sandbox.thaw()

    async def save(self, target: Path) -> None:
        """Copy the writable file system to a directory that a `Plan.seed` can name."""
        await self._sandbox.save(target)

    async def stop(self) -> None:
        """End everything and remove the directory; idempotent."""
        await self._let_go(self._sandbox.stop)

    async def leave(self) -> None:
        """Let go of everything and let it run, for an emulator with a `Plan` that is ``adopted``."""
        await self._let_go(self._sandbox.leave)

    async def _let_go(self, last: Callable[[], Awaitable[None]]) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._envd.close()
            if self._code is not None:
                await self._code.close()
        finally:
            if self._main is not None:
                self._main.close()
            await last()

    async def wait_dead(self) -> None:
        """Return when the sandbox has ended."""
        await self._sandbox.wait_dead()

    def processes(self) -> list[dict[str, Any]]:
        """Return the processes that clients started: pid and command."""
        processes: list[dict[str, Any]] = self._envd.processes
        return processes

    async def usage(self) -> dict[str, float]:
        """Return cpu_percent, memory_used, memory_total, disk_used, disk_total; sizes in bytes."""
        usage = await asyncio.to_thread(self._sandbox.usage)
        names = ("cpu_percent", "memory_used", "memory_total", "disk_used", "disk_total")
        return {name: float(getattr(usage, name)) for name in names}

    def set_network(self, network: Reach) -> None:
        """Let it reach other machines, or not."""
        self._sandbox.set_network(network)

    async def fill_disk(self, full: bool) -> None:
        """Make the file system full, or as it was."""
        await asyncio.to_thread(self._sandbox.fill_disk, full)


def _import_parts(interprets: bool, serves_agents: bool) -> None:
    importlib.import_module("ags_flows.emulator.envd")
    if interprets:
        importlib.import_module("ags_flows.emulator.code_interpreter")
    if serves_agents:
        importlib.import_module("ags_flows.emulator.agent_server")


Launch = Callable[[Plan], Awaitable[Machine]]
