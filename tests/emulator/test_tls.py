"""HTTPS, with certificates that clients check."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import closing

import certifi
import httpx
import pytest
from e2b import Sandbox
from tencentcloud.ags.v20250920.ags_client import AgsClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from websockets.sync.client import connect

from ags_flows import sandbox_session
from ags_flows.emulator import Emulator
from ags_flows.models import ToolSpec
from ags_flows.testing import config_for


@pytest.fixture(scope="module")
def emulator(trusting):
    with Emulator(tls=True) as emulator, trusting(emulator):
        yield emulator


class Proxy:
    """Tunnels every host to this machine: a resolver for clients whose machine resolves no name below localhost."""

    def __init__(self):
        self.seen = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        host, _, port = head.split()[1].decode().rpartition(":")
        self.seen.append(host)
        server = socket.create_connection(("127.0.0.1", int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def _pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture(scope="module")
def proxy():
    with closing(Proxy()) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def sandbox(emulator, proxy):
    """A sandbox whose client has been given the domain alone."""
    sandbox = Sandbox.create(
        "base", api_key=emulator.api_key, domain=emulator.environment["E2B_DOMAIN"], proxy=proxy.url
    )
    yield sandbox
    sandbox.kill()


def test_both_protocols_are_spoken_on_one_port(emulator):
    for url in (emulator.url, emulator.url.replace("https", "http")):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert emulator.url.startswith("https://")


def certificate_of(emulator, name):
    """Return the names of the certificate for a name, checked by its client."""
    context = ssl.create_default_context(cafile=emulator.environment["SSL_CERT_FILE"])
    with socket.create_connection((emulator.host, emulator.port)) as plain:
        with context.wrap_socket(plain, server_hostname=name) as connection:
            return {value for _, value in connection.getpeercert()["subjectAltName"]}


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", "api.localhost", "49983-0123456789abcdef.localhost", "8000-A-b.LOCALHOST"]
)
def test_the_certificate_is_the_one_for_the_name(emulator, name):
    assert name.lower() in {each.lower().replace("0:0:0:0:0:0:0:1", "::1") for each in certificate_of(emulator, name)}


def test_it_listens_where_its_host_is_and_nowhere_else(trusting):
    for host, other in (("127.0.0.1", "::1"), ("::1", "127.0.0.1")):
        with Emulator(host=host, tls=True) as emulator, trusting(emulator):
            assert httpx.get(f"{emulator.url}/health").status_code == 200
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, emulator.port)).close()


@pytest.mark.parametrize("name", ["example.com", "localhost.example.com", "notlocalhost"])
def test_no_other_name_is_vouched_for(emulator, name):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        certificate_of(emulator, name)


def test_a_client_that_does_not_trust_it_disturbs_no_other_client(emulator):
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(emulator.url, verify=ssl.create_default_context(cafile=certifi.where()))
    for data in (b"\x16\x03", b"\x16garbage", b""):
        with socket.create_connection((emulator.host, emulator.port)) as connection:
            connection.sendall(data)
    assert httpx.get(f"{emulator.url}/health").status_code == 200


def test_an_sdk_that_builds_hosts_of_ports_works_with_the_domain_alone(emulator, proxy, sandbox):
    assert sandbox.commands.run("echo here").stdout == "here\n"
    sandbox.files.write("file.txt", "text")
    assert sandbox.files.read("file.txt") == "text"
    assert {"api.localhost", f"49983-{sandbox.sandbox_id}.localhost"} <= set(proxy.seen)


def test_a_server_in_the_sandbox_is_reached_by_its_host(sandbox, proxy):
    command = "mkdir -p www; echo page > www/index.html; cd www; exec python3 -m http.server 8000"
    server = sandbox.commands.run(command, background=True, timeout=0)
    url = f"https://{sandbox.get_host(8000)}/index.html"
    sandbox.commands.run("until (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.05; done")
    with httpx.Client(proxy=proxy.url, headers={"X-Access-Token": sandbox.traffic_access_token or ""}) as client:
        assert client.get(url).text == "page\n"
    server.kill()


def test_a_sandbox_ends_cleanly_while_its_output_is_streamed(emulator, proxy, caplog):
    domain = emulator.environment["E2B_DOMAIN"]
    for _ in range(3):
        sandbox = Sandbox.create("base", api_key=emulator.api_key, domain=domain, proxy=proxy.url)
        sandbox.commands.run("sleep 600", background=True, timeout=0)
        sandbox.kill()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_web_sockets_are_encrypted_too(emulator, sandbox):
    context = ssl.create_default_context(cafile=emulator.environment["SSL_CERT_FILE"])
    with pytest.raises(Exception, match="502|401|403"):
        # Nothing listens there: the test checks only that the handshake gets a response.
        connect(f"wss://127.0.0.1:{emulator.port}/sandbox/{sandbox.sandbox_id}/9999/", ssl=context)


def test_the_sdk_of_tencent_cloud_takes_the_file(emulator):
    profile = HttpProfile(
        protocol="https", endpoint=emulator.url.removeprefix("https://"), certification=os.environ["SSL_CERT_FILE"]
    )
    keys = Credential(emulator.secret_id, emulator.secret_key)
    client = AgsClient(keys, emulator.region, ClientProfile(httpProfile=profile))
    assert client.call_json("DescribeSandboxToolList", {})["Response"]["TotalCount"] > 0


def test_our_own_client_trusts_what_the_environment_names(emulator, tmp_path):
    config = config_for(emulator)
    (tmp_path / "in.txt").write_text("in")
    with sandbox_session(ToolSpec(name="tls", image="python:3.11"), config=config) as sandbox:
        sandbox.upload(tmp_path / "in.txt", "in.txt")
        assert sandbox.run("cat in.txt").stdout == "in"


def test_clients_that_trust_an_emulator_trust_the_next_one_with_its_state(tmp_path):
    files = []
    for _ in range(2):
        with Emulator(state=tmp_path, tls=True) as emulator:
            files.append((tmp_path / "tls" / "ca.pem").read_bytes())
            assert certificate_of(emulator, "localhost")
            assert (tmp_path / "tls" / "ca.key").stat().st_mode & 0o077 == 0
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])
def test_what_clients_trust_already_is_in_the_bundle(emulator, name):
    context = ssl.create_default_context(cafile=emulator.environment[name])
    assert context.cert_store_stats()["x509_ca"] > 10


def test_curl_trusts_it_whatever_the_machine_sets(emulator):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    machine = {"PATH": os.environ["PATH"], "SSL_CERT_DIR": "/etc/ssl/certs", "CURL_CA_BUNDLE": certifi.where()}
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", f"{emulator.url}/health"]
    done = subprocess.run(command, env={**machine, **emulator.environment}, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)


def test_an_emulator_that_starts_with_the_variables_of_its_last_run_changes_no_bundle(tmp_path, monkeypatch):
    bundles = []
    for _ in range(2):
        with Emulator(state=tmp_path, tls=True) as emulator:
            monkeypatch.setenv("SSL_CERT_FILE", emulator.environment["SSL_CERT_FILE"])
            bundles.append((tmp_path / "tls" / "bundle.pem").read_bytes())
    assert bundles[0] == bundles[1]
