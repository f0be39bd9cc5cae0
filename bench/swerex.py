"""A round trip to a SWE-ReX server: through the gateway, and to the same server directly on loopback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from swerex.runtime.abstract import BashAction, Command, CreateBashSessionRequest
from swerex.runtime.remote import RemoteRuntime

from ags_flows.models import ToolSpec
from ags_flows.swerex import AGSDeployment
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process

ROUNDS = 40
TOOL = ToolSpec(name="swe", type="swebench", image="swebench/base:latest", image_registry_type="system")
SHELL = CreateBashSessionRequest(startup_timeout=10)
ECHO = BashAction(command="echo hello", timeout=30)
COMMAND = Command(command=["echo", "hello"], timeout=30)


def figures() -> Iterator[Figure]:
    """Measure `echo`, in turns, beside SWE-ReX's own client and a server on this machine."""
    loop = asyncio.new_event_loop()
    with running_emulator_process() as config, served_on_loopback(loop) as direct:
        deployment = AGSDeployment(tool=TOOL, ags=config)
        began = time.perf_counter()
        loop.run_until_complete(deployment.start())
        yield Figure("a SWE-ReX deployment until it responds", time.perf_counter() - began, "s", 10.0)
        try:
            for runtime in (deployment.runtime, direct):
                loop.run_until_complete(runtime.create_session(SHELL))
            ours, theirs = side_by_side(
                lambda: loop.run_until_complete(deployment.runtime.run_in_session(ECHO)),
                lambda: loop.run_until_complete(direct.run_in_session(ECHO)),
                ROUNDS,
            )
            detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
            yield Figure("SWE-ReX echo in a shell: gateway / loopback", ours / theirs, "x", 2.0, detail=detail)
            # Without SWE-ReX's own pauses: what the gateway and the client cost.
            ours, theirs = side_by_side(
                lambda: loop.run_until_complete(deployment.runtime.execute(COMMAND)),
                lambda: loop.run_until_complete(direct.execute(COMMAND)),
                ROUNDS,
            )
            detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
            yield Figure("SWE-ReX command: gateway - loopback", (ours - theirs) * 1000, "ms", 20.0, detail=detail)
        finally:
            loop.run_until_complete(deployment.stop())
            loop.close()


@contextmanager
def served_on_loopback(loop: asyncio.AbstractEventLoop) -> Iterator[RemoteRuntime]:
    """Yield SWE-ReX's own client of a server on this machine, without a gateway in between."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "swerex", "--host", "127.0.0.1", "--port", str(port), "--auth-token", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runtime = RemoteRuntime(auth_token="", host="http://127.0.0.1", port=port, timeout=5.0)
        loop.run_until_complete(runtime.wait_until_alive(timeout=60.0))
        yield runtime
    finally:
        server.terminate()
        server.wait()
