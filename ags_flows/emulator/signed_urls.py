"""Signed URLs of files: a request with one needs no token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

PATH = "/files"


class Expired(Exception):
    """The signature is valid but has expired."""


def signed(scope: Scope, tokens: Sequence[str]) -> bool:
    """Return True if the URL of a request was signed with one of the tokens.

    Args:
        scope: The request (ASGI).
        tokens: The tokens that may have signed it.

    Raises:
        Expired: The signature is valid but has expired.
    """
    if scope["type"] != "http" or scope["path"] != PATH:
        return False
    query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
    given, expiration = query.get("signature"), query.get("signature_expiration")
    if not given:
        return False
    operation = "read" if scope["method"] in ("GET", "HEAD") else "write"
    for token in tokens:
        parts = [query.get("path", ""), operation, query.get("username", ""), token]
        if expiration:
            parts.append(expiration)
        digest = base64.b64encode(hashlib.sha256(":".join(parts).encode()).digest()).decode().rstrip("=")
        if hmac.compare_digest(f"v1_{digest}".encode(), given.encode()):
            if expiration and expiration.isdigit() and int(expiration) < time.time():
                raise Expired
            return True
    return False
