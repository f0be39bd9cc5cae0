"""The agent runtime that tools of type `swebench` serve on port 8000: SWE-ReX, the real one.

It takes half a second of processor time to start, and most sandboxes of such tools never need it. So the first request
for its port starts it. That request gets the error that the port is not open, as in a sandbox that has just started.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from concurrent.futures import Future
from typing import Any

from ags_flows.emulator.code_interpreter.places import isolated_places
from ags_flows.emulator.sandbox.plain import PlainSandbox

LOG = "/var/log/swerex.log"

_START = f'exec "$0" "$@" >{LOG} 2>&1'

# The server's packages come before those of the interpreter. The environment of the shells that it opens has neither.
_SERVE = (
    "import os, runpy, sys; sys.path[:0] = sys.argv.pop(1).split(os.pathsep); os.environ.pop('LD_LIBRARY_PATH', None); "
    "runpy.run_module('swerex', run_name='__main__', alter_sys=True)"
)


def has_agent_server() -> bool:
    """Return True if the package `swe-rex` is installed on this machine."""
    return importlib.util.find_spec("swerex") is not None


class AgentServer:
    """Starts the server in one sandbox, at most once. Create it on the event loop.

    Args:
        sandbox: A sandbox with the mounts of `interpreter_binds()`. In a plain directory nothing is started: the port
            would be the host's port.
    """

    port = 8000

    def __init__(self, sandbox: Any) -> None:
        """Do not start the server yet."""
        self._sandbox = sandbox
        self._loop = asyncio.get_running_loop()
        self._started: Future[None] | None = None

    def wake(self) -> None:
        """Start the server if it was not started. Thread-safe; does not wait."""
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
