"""Which sandbox and which port a request is for: by Host, header, cookie or path, in this order."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ags_flows.emulator.http import raw_path

ENVD_PORT = 49983
INTERPRETER_PORT = 49999

_HOST = re.compile(r"(?P<port>\d{1,5})-(?P<instance>[A-Za-z0-9][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*)\.[^:]+(?::\d+)?")
_PATH = re.compile(r"/sandbox/(?P<instance>[A-Za-z0-9_-]+)/(?P<port>\d{1,5})(?P<rest>/.*)?")
_HEADERS = (
    ("e2b-sandbox-id", "e2b-sandbox-port"),
    ("x-sandbox-id", "x-sandbox-port"),
    ("x-cs-sandbox-id", "x-cs-sandbox-port"),
)


class Route(NamedTuple):
    """Where a request goes.

    Attributes:
        instance_id: The sandbox.
        port: The port in it.
        path: The path there, encoded as it came.
        by_sdk: Whether it came with E2B's headers: E2B's SDKs expect E2B's text for a sandbox that is gone.
    """

    instance_id: str
    port: int
    path: str
    by_sdk: bool


def route_of(scope: Scope) -> Route | None:
    """Return where a request goes, None when it is not for a sandbox."""
    if scope["type"] not in ("http", "websocket"):
        return None
    connection = HTTPConnection(scope)
    headers, path = connection.headers, raw_path(scope)
    by_sdk = "e2b-sandbox-id" in headers
    if (match := _HOST.fullmatch(headers.get("host", ""))) and _is_port(match["port"]):
        return Route(match["instance"], int(match["port"]), path, by_sdk)
    for id_name, port_name in _HEADERS:
        if instance := headers.get(id_name):
            port = headers.get(port_name, str(ENVD_PORT))
            return Route(instance, int(port) if _is_port(port) else 0, path, by_sdk)
    if route := _by_cookie(connection, path):
        return route
    if (match := _PATH.fullmatch(path)) and _is_port(match["port"]):
        return Route(match["instance"], int(match["port"]), match["rest"] or "/", by_sdk)
    return None


def token_of(scope: Scope) -> str | None:
    """Return the access token of a request: a header, or the query for links in a browser."""
    connection = HTTPConnection(scope)
    for name in ("x-access-token", "e2b-traffic-access-token"):
        if token := connection.headers.get(name):
            return token
    return connection.query_params.get("access_token") or None


def _by_cookie(connection: HTTPConnection, path: str) -> Route | None:
    """Return where a request goes by its query or its cookies."""
    query = connection.query_params
    found = query if query.get("x-sandbox-id") else connection.cookies
    instance, port = found.get("x-sandbox-id"), found.get("x-sandbox-port", str(ENVD_PORT))
    return Route(instance, int(port), path, False) if instance and _is_port(port) else None


def _is_port(text: str) -> bool:
    return text.isdigit() and 1 <= int(text) <= 65535
