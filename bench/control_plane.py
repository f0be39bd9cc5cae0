"""Fifty sequential calls of the control plane against the SDK as it is, over TLS on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tencentcloud.ags.v20250920 import ags_client
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from ags_flows import AGSConfig
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process

CALLS = 50
ROUNDS = 5


def figures() -> Iterator[Figure]:
    """Compare 50 calls that list tools with a client of the SDK that closes its connection after each call."""
    with running_emulator_process() as config, tls_in_front_of(config.http_endpoint) as address:
        secured = AGSConfig(
            http_endpoint=f"https://{address}",
            domain=config.domain,
            credentials=config.credentials,
            skip_ssl_verify=True,
        )
        control = secured.control_plane()
        bare = bare_client(secured, address)

        def ours() -> None:
            for _ in range(CALLS):
                control.list_tools(limit=20)

        def theirs() -> None:
            for _ in range(CALLS):
                bare.call_json("DescribeSandboxToolList", {}, headers={"Connection": "close"})

        mine, plain = side_by_side(ours, theirs, ROUNDS, warm=1)
        detail = f"{plain:.2f} s / {mine:.2f} s"
        yield Figure("50 calls without keep-alive / ours", plain / mine, "x", 2.0, at_least=True, detail=detail)


def bare_client(config: AGSConfig, address: str) -> ags_client.AgsClient:
    """Return the SDK's client as its documentation makes it."""
    secret_id, secret_key = config.connection().require_keys()
    profile = HttpProfile(protocol="https", endpoint=address)
    profile.certification = False
    return ags_client.AgsClient(Credential(secret_id, secret_key), config.region, ClientProfile(httpProfile=profile))


@contextmanager
def tls_in_front_of(url: str) -> Iterator[str]:
    """Yield the URL of a relay that accepts TLS and forwards to an http URL."""
    target = urlsplit(url)
    with tempfile.TemporaryDirectory() as directory:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed(Path(directory)))
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(plain,), daemon=True).start()

    def relay(plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as inner:
            with socket.create_connection((str(target.hostname), int(target.port or 80))) as outer:
                outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=pump, args=(outer, inner), daemon=True)
                back.start()
                pump(inner, outer)
                back.join()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one side closes."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def self_signed(directory: Path) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "both.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
