"""The way out of a sandbox."""

import asyncio
import contextlib
import http.server
import socket
import threading

import pytest

from ags_flows.emulator.reach import EVERYWHERE, NOWHERE, Reach
from ags_flows.emulator.sandbox import egress, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.command} {self.path} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def other_machine(monkeypatch):
    """A web server that stands for another machine: there is no other one here."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]

        async def connect(host, asked, reach):
            assert host == "other.machine"
            return await asyncio.open_connection("127.0.0.1", port)

        monkeypatch.setattr(egress, "_connect", connect)
        yield f"http://other.machine:{port}"
        server.shutdown()


def test_plain_requests_and_tunnels_get_through(started, other_machine):
    sandbox = started()
    plain = started.shell(sandbox, f"curl -sS {other_machine}/a?b=1")
    tunnel = started.shell(sandbox, f"curl -sS --proxytunnel {other_machine}/c")
    large = started.shell(sandbox, f"head -c 3000000 /dev/zero | curl -sS --data-binary @- {other_machine}/ | wc -c")

    assert plain == (0, f"GET /a?b=1 {other_machine[7:]}")
    assert tunnel == (0, f"GET /c {other_machine[7:]}")
    assert large == (0, "3000000\n")


def test_what_is_in_the_sandbox_is_reached_without_it(started):
    sandbox = started()
    with sandbox.listen(8000) as listener:
        listener.settimeout(20)
        for own in ("localhost", "127.0.0.1", "0.0.0.0", "$(hostname)"):
            asking = f"(curl -sS -m 5 http://{own}:8000/ > /tmp/got 2>&1 &) ; true"
            assert started.shell(sandbox, asking)[0] == 0
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100).startswith(b"GET / HTTP"), own


def test_without_network_there_is_no_way_out(started, other_machine):
    sandbox = started(network=NOWHERE)

    assert started.shell(sandbox, "env | grep -ci proxy")[1] == "0\n"
    assert started.shell(sandbox, f"curl -sS -m 3 {other_machine}/")[0] != 0


def test_the_network_is_switched_while_the_sandbox_runs(started, other_machine):
    sandbox = started(network=NOWHERE)

    async def change(network):
        sandbox.set_network(network)
        sandbox.set_network(network)

    started.run(change(EVERYWHERE))
    assert started.shell(sandbox, f"curl -sS {other_machine}/")[0] == 0
    started.run(change(NOWHERE))
    assert started.shell(sandbox, f"curl -sS -m 3 {other_machine}/")[0] != 0


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"]
)
def test_this_machine_is_not_reached_through_it(started, name):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sandbox = started()
        code, out = started.shell(sandbox, f"curl -sS --noproxy '' -m 5 http://{name}:{port}/")
        tunnel, _ = started.shell(sandbox, f"curl -sS --noproxy '' -p -m 5 http://{name}:{port}/")
        server.settimeout(0.05)
        with pytest.raises(OSError):
            server.accept()

    assert "is this machine" in out
    assert tunnel != 0


@pytest.fixture
def two_machines(monkeypatch):
    """Web servers at two IP addresses that count as other machines."""
    monkeypatch.setattr(egress, "_is_own", lambda address: False)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.2", 0), Page))
        second = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.3", 0), Page))
        for server in (first, second):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield [f"http://{server.server_address[0]}:{server.server_address[1]}/" for server in (first, second)]


@pytest.mark.parametrize(
    ("network", "reached"),
    [
        ({"denyOut": ["127.0.0.3"]}, [True, False]),
        ({"denyOut": ["127.0.0.0/8"], "allowOut": ["127.0.0.3"]}, [False, True]),
        ({"denyOut": ["0.0.0.0/0"], "allowOut": ["127.0.0.2/32"]}, [True, False]),
    ],
)
def test_rules_for_ip_addresses_hold(started, two_machines, network, reached):
    sandbox = started(network=Reach.of(network))
    got = [started.shell(sandbox, f"curl -sS -f --noproxy '' -m 5 {machine}")[0] == 0 for machine in two_machines]
    tunnels = [started.shell(sandbox, f"curl -sS --noproxy '' -p -m 5 {machine}")[0] == 0 for machine in two_machines]

    assert got == tunnels == reached


def test_new_rules_cut_what_they_deny(started, two_machines):
    sandbox = started(network=EVERYWHERE)
    port = two_machines[0].rpartition(":")[2].strip("/")
    talk = f"exec 3<>/dev/tcp/127.0.0.1/${{http_proxy##*:}}; printf 'CONNECT 127.0.0.2:{port} HTTP/1.1\\r\\n\\r\\n' >&3"

    async def cut():
        process = await sandbox.spawn(["/bin/bash", "-c", f"{talk}; head -1 <&3; cat <&3; echo cut"])
        assert b"200" in await process.stdout.read(100)
        sandbox.set_network(Reach.of({"denyOut": ["127.0.0.2"]}))
        rest = await process.stdout.read(100)
        while b"cut" not in rest:
            rest += await process.stdout.read(100)
        await process.wait()
        process.release()

    started.run(cut())


def test_garbage_and_unknown_hosts_get_a_response(started):
    sandbox = started()
    talk = "exec 3<>/dev/tcp/127.0.0.1/${{http_proxy##*:}}; printf '{}\\r\\n\\r\\n' >&3; head -1 <&3"

    assert "400" in started.shell(sandbox, talk.format("GARBAGE"))[1]
    assert "400" in started.shell(sandbox, talk.format("GET /relative HTTP/1.1"))[1]
    assert "400" in started.shell(sandbox, talk.format("CONNECT nowhere HTTP/1.1"))[1]
    assert "502" in started.shell(sandbox, talk.format("CONNECT host.invalid:443 HTTP/1.1"))[1]
