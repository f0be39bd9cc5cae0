"""Ports whose servers speak TLS."""

import datetime
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"by TLS"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def certificate(tmp_path):
    """A certificate that a program made for itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made + secret)
    return path


@pytest.fixture
def secured(certificate):
    """The port of a server that speaks nothing but TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_declared_https_port_is_reached_by_tls(client, target, secured):
    host = {"Host": f"{secured}-sbi-1.localhost"}
    assert client.get("/", headers=host).status_code == 502
    target.tls_ports = (secured,)
    assert client.get("/", headers=host).text == "by TLS"


def test_a_declared_https_port_that_does_not_speak_tls_is_502(client, target, inside):
    target.tls_ports = (inside.port,)
    answer = client.get("/")

    assert answer.status_code == 502
    assert "gave no HTTP response" in answer.json()["message"]
