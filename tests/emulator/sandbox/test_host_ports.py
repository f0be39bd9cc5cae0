"""Chosen ports of this machine inside of sandboxes: only those, and only for sandboxes with a network."""

import http.server
import threading

import pytest

from ags_flows import sandbox_session
from ags_flows.models import Network, ToolSpec
from ags_flows.testing import config_for, running_emulator


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * 300_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def ports():
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    yield [server.server_port for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_sandbox_reaches_the_ports_that_are_named_and_no_other(ports):
    named, other = ports
    look = "curl -s -o /dev/null -w '%{{size_download}}' http://127.0.0.1:{}/ || :"
    with running_emulator(host_ports=[named]) as emulator:
        emulator.transition("tool.create", "at_once")
        config = config_for(emulator)
        with sandbox_session("base", config=config) as sandbox:
            assert sandbox.run(look.format(named)).stdout == "300000"
            assert sandbox.run(look.format(other)).stdout == "0"
        closed = ToolSpec(name="closed", image="python:3.11", network=Network(mode="SANDBOX"))
        with sandbox_session(closed, config=config) as sandbox:
            assert sandbox.run(look.format(named)).stdout == "0"


def test_a_sandbox_of_prefects_image_has_the_command_prefect(ags_emulator, ags_config):
    ags_emulator.transition("tool.create", "at_once")
    with sandbox_session(ToolSpec(name="p", image="prefecthq/prefect:3-latest"), config=ags_config) as sandbox:
        assert sandbox.run("command -v prefect").stdout == "/opt/sandbox/bin/prefect\n"
        assert sandbox.run("head -c 2 /opt/sandbox/bin/prefect").stdout == "#!"
    with sandbox_session(ToolSpec(name="q", image="python:3.11"), config=ags_config) as sandbox:
        assert not sandbox.run("command -v prefect").ok
