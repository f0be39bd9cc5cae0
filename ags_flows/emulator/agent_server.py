"""The agent runtime that tools of type `swebench` serve on port 8000: SWE-ReX, the real one.

It takes half a second of a processor to start and most sandboxes of such tools never need it: it is started by the
first request for its port. Whoever asks that early is told that the port is not open, as in a sandbox that has just
begun.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from concurrent.futures import Future
from typing import Any

from .code_interpreter.places import isolated_places
from .sandbox.plain import PlainSandbox

LOG = "/var/log/swerex.log"

_START = f'exec "$0" "$@" >{LOG} 2>&1'

# Its own packages come before those of the interpreter; the shells that it opens find neither in their environment.
_SERVE = (
    "import os, runpy, sys; sys.path[:0] = sys.argv.pop(1).split(os.pathsep); os.environ.pop('LD_LIBRARY_PATH', None); "
    "runpy.run_module('swerex', run_name='__main__', alter_sys=True)"
)


def has_agent_server() -> bool:
    """Whether this machine has what is to be started: the package `swe-rex`."""
    return importlib.util.find_spec("swerex") is not None


class AgentServer:
    """Starts the server in one sandbox, at most once. Made on the event loop.

    Args:
        sandbox: It has been given `interpreter_binds()`. In a plain directory the port would be the host's own:
            there nothing is started.
    """

    port = 8000

    def __init__(self, sandbox: Any) -> None:
        """Start nothing yet."""
        self._sandbox = sandbox
        self._loop = asyncio.get_running_loop()
        self._started: Future[None] | None = None

    def wake(self) -> None:
        """Start it, unless that was done; from any thread, without waiting."""
        if self._started is None and not isinstance(self._sandbox, PlainSandbox):
            self._started = asyncio.run_coroutine_threadsafe(self._start(), self._loop)

    async def _start(self) -> None:
        places = isolated_places()
        arguments = ("--port", str(self.port), "--auth-token", "")
        program = (places.python, "-c", _SERVE, os.pathsep.join(places.packages), *arguments)
        libraries = {"LD_LIBRARY_PATH": places.libraries} if places.libraries else {}
        await self._sandbox.spawn(
            ["/bin/sh", "-c", _START, *program], user="root", cwd="/", env=libraries, stdin="null"
        )
