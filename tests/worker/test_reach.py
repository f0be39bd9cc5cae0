"""How sandboxes reach the Prefect server: what the look before a flow starts asks for is what Prefect's client will."""

import base64
import ssl
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL

from ags_flows.demo.servers import free_port
from tests.worker.conftest import state

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect leaves sockets to the garbage collector when an event loop ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Gateway(BaseHTTPRequestHandler):
    """Forwards requests to the Prefect server: as a proxy, or as a server that wants credentials."""

    def forward(self):
        wanted = self.server.wanted
        if any(self.headers.get(name) != value for name, value in wanted.items()):
            self.send_error(401)
            return
        self.server.seen.append(self.path)
        path = "/api" + self.path.partition("/api")[2]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        request = urllib.request.Request(
            PREFECT_API_URL.value().removesuffix("/api") + path,
            body,
            {"Content-Type": "application/json"},
            method=self.command,
        )
        try:
            with urllib.request.urlopen(request) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = forward

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def served_ports():
    return [free_port()]


@pytest.fixture
def gateway(served_ports):
    server = ThreadingHTTPServer(("127.0.0.1", served_ports[0]), Gateway)
    server.daemon_threads = True
    server.seen, server.wanted, server.url = [], {}, f"http://127.0.0.1:{served_ports[0]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    yield server, thread
    server.shutdown()
    thread.join()
    server.server_close()


def performed(pool, *commands, **variables):
    run = pool.submit(*(commands or (state("RUNNING"), state("COMPLETED"))), **variables)
    return pool.end_of(run)


def test_a_url_without_api_is_named(pool):
    found = performed(pool, api_url=PREFECT_API_URL.value().removesuffix("/api"))
    assert found.state.type == StateType.CRASHED
    assert "ends with /api" in found.state.message


@pytest.mark.long
def test_the_proxy_of_the_run_is_used(pool, gateway):
    server, thread = gateway
    thread.start()
    found = performed(
        pool, api_url="http://prefect.invalid/api", env={"http_proxy": server.url, "no_proxy": "127.0.0.1"}
    )
    assert found.state.type == StateType.COMPLETED, found.state.message
    assert server.seen[0] == "http://prefect.invalid/api/health"


def test_credentials_and_headers_of_the_run_are_sent(pool, gateway):
    server, thread = gateway
    thread.start()
    server.wanted = {"Authorization": f"Basic {base64.b64encode(b'admin:pass').decode()}", "X-Gate": "open"}
    url = f"{server.url}/api"
    refused = performed(pool, api_url=url, env={"PREFECT_API_AUTH_STRING": "admin:wrong"})
    assert refused.state.type == StateType.CRASHED
    assert "status 401" in refused.state.message and "admin:wrong" not in refused.state.message
    given = {"PREFECT_API_AUTH_STRING": "admin:pass", "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Gate": "open"}'}
    performed(pool, "true", api_url=url, env=given)
    assert server.seen == ["/api/health"]


@pytest.mark.long
def test_the_certificate_of_the_run_is_trusted(pool, gateway, tmp_path):
    server, thread = gateway
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread.start()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    url = server.url.replace("http:", "https:") + "/api"
    refused = performed(pool, api_url=url)
    assert refused.state.type == StateType.CRASHED and "certificate" in refused.state.message.lower()
    trusting = {"PREFECT_API_SSL_CERT_FILE": "/home/user/ca.pem", "CURL_CA_BUNDLE": "/home/user/ca.pem"}
    found = performed(pool, api_url=url, env=trusting, uploads={str(tmp_path / "ca.pem"): "ca.pem"})
    assert found.state.type == StateType.COMPLETED, found.state.message
    skipping = {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true"}
    server.seen.clear()
    performed(pool, "true", api_url=url, env=skipping)
    assert server.seen == ["/api/health"]
