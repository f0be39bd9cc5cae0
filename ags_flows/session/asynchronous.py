"""A session for asynchronous code: the methods of `SandboxSession`, awaited."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from ags_flows.models import Instance, Step, Tool
from ags_flows.run.awaitable import awaitable
from ags_flows.session.session import SandboxSession

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(
    method: Callable[Concatenate[SandboxSession, P], R],
) -> Callable[Concatenate[AsyncSandboxSession, P], Coroutine[Any, Any, R]]:
    """Return a method of a session as one that is awaited: a thread executes it."""

    @functools.wraps(method)
    async def call(self: AsyncSandboxSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await awaitable(method)(self.session, *args, **kwargs)

    return call


class AsyncSandboxSession:
    """A running sandbox and what can be done in it, without blocking the event loop. Made by `sandbox_session`.

    Methods, arguments and results are those of `SandboxSession`. Several can be awaited concurrently. If the coroutine
    that waits for one is cancelled, for example by `asyncio.timeout`, its wait ends within a second: a command is
    killed; a transfer or a code cell goes on until the session ends.

    Attributes:
        session: The session whose methods the threads execute.
    """

    def __init__(self, session: SandboxSession) -> None:
        self.session = session

    run = _awaited(SandboxSession.run)
    start = _awaited(SandboxSession.start)
    wait = _awaited(SandboxSession.wait)
    kill = _awaited(SandboxSession.kill)
    run_code = _awaited(SandboxSession.run_code)
    call = _awaited(SandboxSession.call)
    upload = _awaited(SandboxSession.upload)
    download = _awaited(SandboxSession.download)
    collect = _awaited(SandboxSession.collect)
    write = _awaited(SandboxSession.write)
    read = _awaited(SandboxSession.read)
    list = _awaited(SandboxSession.list)
    snapshot = _awaited(SandboxSession.snapshot)

    @property
    def instance(self) -> Instance:
        """The instance."""
        return self.session.instance

    @property
    def tool(self) -> Tool | str:
        """The tool."""
        return self.session.tool

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step so far, with its duration."""
        return tuple(self.session.steps)

    @property
    def place_key(self) -> str:
        """What stands for the session in steps."""
        return self.session.place_key

    def url(self, port: int | None = None) -> str:
        """Return the URL of a port of the sandbox, by default the configuration's."""
        return self.session.url(port)
