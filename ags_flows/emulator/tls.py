"""Certificates for clients that speak HTTPS: an authority, and a certificate for each name that is asked for.

Clients refuse a wildcard directly below a top-level name such as ``*.localhost``, so a certificate is issued for each
host name of a sandbox when it is first used.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

import certifi
import trustme

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BELOW = ".localhost"
_NAMES = 1024
"""Host names whose certificates are kept; others are issued again."""


class Authority:
    """A certificate authority for the loopback names and for every name below ``localhost``.

    It is kept in a directory, so that clients which trust it go on to trust the next emulator there.

    Args:
        directory: Where its files are, or will be.

    Attributes:
        bundle: The file with its certificate and those of this machine: most clients trust one file only.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate, key = directory / "ca.pem", directory / "ca.key"
        self.bundle = directory / "bundle.pem"
        if certificate.exists() and key.exists():
            self._authority = trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
        else:
            self._authority = trustme.CA(organization_name="AGS emulator")
            _write(key, self._authority.private_key_pem.bytes())
            _write(certificate, self._authority.cert_pem.bytes())
        trusted, own = _of_this_machine(), self._authority.cert_pem.bytes()
        # The environment may name the bundle of an earlier run.
        _write(self.bundle, trusted if own in trusted else trusted + own)
        # By instance: each authority has its own names.
        self._below = lru_cache(_NAMES)(self._issue)

    def context(self) -> ssl.SSLContext:
        """Return how a server is encrypted: its certificate is the one for the name that the client asks for."""
        context = self._issue(*_LOOPBACK)
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is not None and name.lower().endswith(_BELOW):
            connection.context = self._below(name.lower())

    def _issue(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        self._authority.issue_cert(*names).configure_cert(context)
        return context


def _of_this_machine() -> bytes:
    """Return the certificates that clients trust without us."""
    for name in (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, certifi.where()):
        if name and os.path.isfile(name):
            return Path(name).read_bytes().rstrip(b"\n") + b"\n"
    return b""


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_bytes(data)
    os.replace(draft, path)
