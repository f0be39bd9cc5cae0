"""Which sandbox and which port a request is for: by Host, header, cookie or path, in this order."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs

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


def headers_of(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Return a request's headers, names in lower case, the last of several."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", [])}


def route_of(scope: MutableMapping[str, Any]) -> Route | None:
    """Return where a request goes, None when it is not for a sandbox."""
    if scope["type"] not in ("http", "websocket"):
        return None
    headers = headers_of(scope)
    raw = scope.get("raw_path")
    path = (raw.decode("latin-1") if raw else scope["path"]).partition("?")[0]
    by_sdk = "e2b-sandbox-id" in headers
    if (match := _HOST.fullmatch(headers.get("host", ""))) and _is_port(match["port"]):
        return Route(match["instance"], int(match["port"]), path, by_sdk)
    for id_name, port_name in _HEADERS:
        if instance := headers.get(id_name):
            port = headers.get(port_name, str(ENVD_PORT))
            return Route(instance, int(port) if _is_port(port) else 0, path, by_sdk)
    if route := _by_cookie(headers, scope, path):
        return route
    if (match := _PATH.fullmatch(path)) and _is_port(match["port"]):
        return Route(match["instance"], int(match["port"]), match["rest"] or "/", by_sdk)
    return None


def token_of(scope: MutableMapping[str, Any]) -> str | None:
    """Return the access token of a request: a header, or the query for links in a browser."""
    headers = headers_of(scope)
    for name in ("x-access-token", "e2b-traffic-access-token"):
        if headers.get(name):
            return headers[name]
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return query["access_token"][0] if query.get("access_token") else None


def _by_cookie(headers: dict[str, str], scope: MutableMapping[str, Any], path: str) -> Route | None:
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    found = {name: query[name][0] for name in ("x-sandbox-id", "x-sandbox-port") if query.get(name)}
    if "x-sandbox-id" not in found and "x-sandbox-id" in headers.get("cookie", ""):
        try:
            cookies = SimpleCookie(headers["cookie"])
        except CookieError:
            return None
        found = {name: cookies[name].value for name in ("x-sandbox-id", "x-sandbox-port") if name in cookies}
    instance, port = found.get("x-sandbox-id"), found.get("x-sandbox-port", str(ENVD_PORT))
    return Route(instance, int(port), path, False) if instance and _is_port(port) else None


def _is_port(text: str) -> bool:
    return text.isdigit() and 1 <= int(text) <= 65535
