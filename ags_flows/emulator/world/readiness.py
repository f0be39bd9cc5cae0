"""When an instance counts as started: its command runs and its probe has passed."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import ssl
import time
from typing import Any

from ags_flows.emulator.world.machine import Machine, MainProcess

Json = dict[str, Any]

_SERVED = {49983}
"""Ports that the emulator itself serves in every sandbox."""

_WORDS = {"exec", "sudo", "nohup", "setsid", "env"}


class NotReady(Exception):
    """The command ended or the probe failed. The message has the details."""


async def get_ready(machine: Machine, custom: Json) -> None:
    """Start the configured command and wait until the probe has passed.

    Images are not run here, only the command. So a probe without a command has nothing to ask: the instance counts
    as ready as soon as its sandbox is up. A command that starts envd needs no starting: envd is built in.

    Raises:
        NotReady: when the command ended before the probe passed, or the probe did not pass in time.
    """
    argv = [*(custom.get("Command") or []), *(custom.get("Args") or [])]
    if not argv or starts_envd(argv):
        return
    env = {each["Name"]: each.get("Value") or "" for each in custom.get("Env") or []}
    main = await machine.run_main(argv, env)
    probe = custom.get("Probe")
    port = ((probe or {}).get("HttpGet") or {}).get("Port")
    served = _SERVED | ({49999} if machine.code_app is not None else set())
    if probe is None or port in served:
        return
    ended = asyncio.ensure_future(main.wait())
    try:
        await _poll(machine, main, probe, ended)
    finally:
        ended.cancel()


def starts_envd(argv: list[str]) -> bool:
    """Return True if a command only starts envd, directly or through ``sh -c``."""
    if len(argv) >= 3 and re.fullmatch(r"(.*/)?(ba|da)?sh", argv[0]) and re.fullmatch(r"-[a-z]*c", argv[1]):
        script = argv[2].strip().rstrip("&").strip()
        if re.search(r"[;|&\n`$<>(]", script):
            return False
        try:
            argv = shlex.split(script)
        except ValueError:
            return False
    while argv and argv[0] in _WORDS:
        argv = argv[1:]
    return bool(argv) and argv[0].rsplit("/", 1)[-1] == "envd"


async def _poll(machine: Machine, main: MainProcess, probe: Json, ended: asyncio.Future[int]) -> None:
    get = probe["HttpGet"]
    port, path = int(get["Port"]), get.get("Path") or "/"
    tls = (get.get("Scheme") or "HTTP").upper() == "HTTPS"
    limit = (probe.get("ReadyTimeoutMs") or 30_000) / 1000
    each = (probe.get("ProbeTimeoutMs") or 1_000) / 1000
    period = (probe.get("ProbePeriodMs") or 1_000) / 1000
    needed, allowed = probe.get("SuccessThreshold") or 1, probe.get("FailureThreshold")
    passed = failed = 0
    last = "it never got a response"
    deadline = time.monotonic() + limit
    while True:
        if ended.done():
            tail = main.tail()
            raise NotReady(
                f"the command ended with code {ended.result()} before the probe passed" + (f": {tail}" if tail else "")
            )
        left = deadline - time.monotonic()
        if left <= 0:
            raise NotReady(f"the probe of port {port}, path {path}, did not pass within {limit:g} s: {last}")
        problem = await asyncio.to_thread(_ask, machine, port, path, tls, min(each, left))
        if problem is None:
            passed, failed = passed + 1, 0
            if passed >= needed:
                return
        else:
            passed, failed, last = 0, failed + 1, problem
            if allowed is not None and allowed > 1 and failed >= allowed:
                raise NotReady(f"the probe of port {port}, path {path}, failed {failed} times: {last}")
        await asyncio.wait([ended], timeout=min(period, max(0.0, deadline - time.monotonic())))


def _ask(machine: Machine, port: int, path: str, tls: bool, timeout: float) -> str | None:
    """Send one probe; return what was wrong, or None."""
    try:
        with machine.connect(port) as plain:
            plain.settimeout(timeout)
            connection: socket.socket = plain
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection = context.wrap_socket(plain, server_hostname="localhost")
            request = (
                f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nUser-Agent: ags-probe\r\n\r\n"
            )
            connection.sendall(request.encode())
            answer = connection.recv(64)
            if connection is not plain:
                connection.close()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    if match is None:
        return "the response was not HTTP"
    status = int(match[1])
    return None if 200 <= status < 400 else f"status {status}"
