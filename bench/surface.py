"""What listing costs, and what a session costs beside bare calls of e2b, step by step."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from e2b import Sandbox

from ags_flows import AGSConfig, TencentCloudCredentials, sandbox_session
from ags_flows.tasks import list_instances
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process

INSTANCES = 10_000
MOST_CALLS = 110
ROUNDS = 5


def figures() -> Iterator[Figure]:
    """Count the calls of one long list; time a session's steps beside those of e2b's own client."""
    yield listing()
    with running_emulator_process() as config:
        yield from session(config)


def listing() -> Figure:
    """List 10,000 instances of a stand-in for AGS that pages as AGS does: starting that many is too slow."""
    with many_instances() as (url, calls):
        keys = TencentCloudCredentials(secret_id="id", secret_key="key")
        config = AGSConfig(http_endpoint=url, domain=url, credentials=keys)
        started = time.perf_counter()
        found = list_instances.fn(metadata={"half": "1"}, config=config)
        taken = time.perf_counter() - started
    assert len(found) == INSTANCES // 2, len(found)
    detail = f"{taken:.2f} s, filtered by metadata"
    return Figure(f"calls to list {INSTANCES:,} instances", len(calls), "calls", MOST_CALLS, detail=detail)


def session(config: AGSConfig) -> Iterator[Figure]:
    """Time each step of a session and of e2b, in the same emulator and outside of flows."""
    token = config.control_plane().call("CreateAPIKey", {"Name": "bench"})["APIKey"]
    theirs: dict[str, float] = {}
    ours: dict[str, float] = {}

    def timed(kept: dict[str, float], name: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        answer = action()
        kept[name] = min(kept.get(name, 1e9), time.perf_counter() - started)
        return answer

    def bare() -> None:
        options = {"api_key": token, "api_url": config.http_endpoint, "sandbox_url": config.http_endpoint}
        sandbox = timed(theirs, "start", lambda: Sandbox.create("base", **options, validate_api_key=False))
        timed(theirs, "write", lambda: sandbox.files.write("a.txt", "hello"))
        timed(theirs, "command", lambda: sandbox.commands.run("cat a.txt"))
        timed(theirs, "read", lambda: sandbox.files.read("a.txt"))
        timed(theirs, "end", sandbox.kill)

    def wrapped() -> None:
        opened = sandbox_session("base", config=config)
        sandbox = timed(ours, "start", opened.__enter__)
        timed(ours, "write", lambda: sandbox.write("a.txt", "hello"))
        timed(ours, "command", lambda: sandbox.run("cat a.txt", log_output=False))
        timed(ours, "read", lambda: sandbox.read("a.txt"))
        timed(ours, "end", lambda: opened.__exit__(None, None, None))

    side_by_side(wrapped, bare, ROUNDS, warm=1)
    for name, limit in LIMITS.items():
        extra = (ours[name] - theirs[name]) * 1000
        detail = f"{ours[name] * 1000:.0f} ms / e2b {theirs[name] * 1000:.0f} ms"
        yield Figure(f"a session's {name} over e2b's", extra, "ms", limit, detail=detail)


LIMITS = {"start": 500.0, "write": 100.0, "command": 500.0, "read": 100.0, "end": 200.0}
"""Milliseconds more than e2b: a session waits until the instance is RUNNING, and its commands are durable."""


@contextmanager
def many_instances() -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a control plane with 10,000 instances, and the calls that reach it."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append(self.headers["X-TC-Action"])
            first = int(asked.get("NextToken") or asked.get("Offset") or 0)
            last = min(INSTANCES, first + min(100, asked.get("MaxResults") or asked.get("Limit") or 20))
            shown = [instance(number) for number in range(first, last)]
            token = str(last) if last < INSTANCES else ""
            body = json.dumps({"Response": {"InstanceSet": shown, "NextToken": token, "RequestId": "r"}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()


def instance(number: int) -> dict[str, Any]:
    """Return an instance as AGS lists it."""
    metadata = [{"Name": "half", "Value": str(number % 2)}, {"Name": "managed-by", "Value": "ags-flows"}]
    return {
        "InstanceId": f"{number:032x}",
        "ToolId": "sdt-12345678",
        "ToolName": "bench",
        "Status": "RUNNING",
        "Metadata": metadata,
        "TimeoutSeconds": 3600,
        "CreateTime": "2026-11-22T09:00:03.094Z",
        "ExpiresAt": "2026-11-22T10:00:03.094Z",
    }
