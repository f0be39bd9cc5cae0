"""A round trip to a SWE-ReX server: through the gateway, and to the same server directly on loopback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from pydantic import BaseModel
from swerex.runtime.abstract import BashAction, Command, CreateBashSessionRequest

from ags_flows.models import ToolSpec
from ags_flows.swerex import AGSDeployment
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process

ROUNDS = 40
TOOL = ToolSpec(name="swe", type="swebench", image="swebench/base:latest", image_registry_type="system")
SHELL = CreateBashSessionRequest(startup_timeout=10)
ECHOES = {
    "in a shell": ("run_in_session", BashAction(command="echo hello", timeout=30)),
    "as a command": ("execute", Command(command=["echo", "hello"], timeout=30)),
}


def figures() -> Iterator[Figure]:
    """Measure `echo`, in turns, beside a bare client of HTTP that keeps its connection to a server on this machine."""
    loop = asyncio.new_event_loop()
    with running_emulator_process() as config, served_on_loopback() as ask:
        deployment = AGSDeployment(tool=TOOL, ags=config)
        began = time.perf_counter()
        loop.run_until_complete(deployment.start())
        yield Figure("a SWE-ReX deployment until it answers", time.perf_counter() - began, "s", 10.0)
        try:
            loop.run_until_complete(deployment.runtime.create_session(SHELL))
            ask("create_session", SHELL)
            for name, (endpoint, echo) in ECHOES.items():
                through = getattr(deployment.runtime, endpoint)
                ours, theirs = side_by_side(
                    lambda call=through, body=echo: loop.run_until_complete(call(body)),  # type: ignore[misc]
                    lambda call=endpoint, body=echo: ask(call, body),  # type: ignore[misc]
                    ROUNDS,
                )
                detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
                yield Figure(f"SWE-ReX echo {name}: gateway / loopback", ours / theirs, "x", 2.0, detail=detail)
        finally:
            loop.run_until_complete(deployment.stop())
            loop.close()


@contextmanager
def served_on_loopback() -> Iterator[Callable[[str, BaseModel], None]]:
    """Give a function that asks a server on this machine, without a gateway in between."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "swerex", "--host", "127.0.0.1", "--port", str(port), "--auth-token", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            deadline = time.monotonic() + 60
            while not _is_up(client):
                assert time.monotonic() < deadline, "SWE-ReX does not start on this machine"
                time.sleep(0.1)

            def ask(endpoint: str, body: BaseModel) -> None:
                client.post(f"/{endpoint}", json=body.model_dump()).raise_for_status()

            yield ask
    finally:
        server.terminate()
        server.wait()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/is_alive").status_code == 200
    except httpx.HTTPError:
        return False
