"""Several requests on one connection, while sandboxes end."""

import asyncio

import httpx
import pytest

from ags_flows.emulator.connection import cut, lend


@pytest.fixture
def client(ags_emulator):
    limits = httpx.Limits(max_connections=1)
    headers = {"X-API-KEY": ags_emulator.api_key}
    url = ags_emulator.url
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False, limits=limits) as client:
        yield client


REQUESTS = {
    "read a file": ("GET", 49983, "/files?path=/etc/hostname", {}),
    "read with a range": ("GET", 49983, "/files?path=/etc/passwd", {"Range": "bytes=0-3"}),
    "call envd": ("POST", 49983, "/filesystem.Filesystem/Stat", {"Content-Type": "application/json"}),
    "list contexts": ("GET", 49999, "/contexts", {}),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_end_of_a_sandbox_cuts_no_response_of_its_connection(client, kind):
    method, port, path, more = REQUESTS[kind]
    for _ in range(5):
        made = client.post("/sandboxes", json={"templateID": "code-interpreter-v1"}).json()
        headers = {"E2b-Sandbox-Id": made["sandboxID"], "E2b-Sandbox-Port": str(port), **more}
        headers["X-Access-Token"] = made["envdAccessToken"]
        body = {"path": "/etc"} if method == "POST" else None
        assert client.request(method, path, json=body, headers=headers).is_success
        assert client.delete(f"/sandboxes/{made['sandboxID']}").status_code == 204


@pytest.mark.parametrize(("more", "aborted"), [(True, 1), (False, 0)])
def test_a_request_is_finished_when_its_last_byte_has_been_sent(more, aborted):
    class Server:
        def __init__(self):
            self.transport, self.aborts = self, 0

        def abort(self):
            self.aborts += 1

        async def send(self, message):
            pass

    server, scope = Server(), {}
    send = lend(scope, server.send)
    asyncio.run(send({"type": "http.response.body", "body": b"x", "more_body": more}))
    cut(scope)
    assert server.aborts == aborted
