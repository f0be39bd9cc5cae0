"""The routes of E2B's API, with and without ``/v2``, and the check of API keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from ..world.refusal import Refusal
from ..world.region import Region
from ..world.world import World
from .body import Body
from .reply import Query, Reply
from .sandboxes import Sandboxes
from .shapes import status_of
from .templates import Templates

logger = logging.getLogger("ags_flows.emulator")

#: More than any request of E2B's API needs.
MOST_BYTES = 4 * 1024 * 1024


class Call:
    """One request, as a route reads it."""

    def __init__(
        self,
        world: World,
        region: Region,
        domain: str | None,
        path: str,
        query: str,
        headers: Mapping[str, str],
        raw: bytes,
    ) -> None:
        """Parse the query and, when it is first asked for, the body."""
        self.v2 = path.startswith("/v2/")
        self.query = Query(query)
        self.key = headers.get("idempotency-key") or None
        self.sandboxes = Sandboxes(world, region, domain)
        self.templates = Templates(world, region)
        self._raw = raw

    @property
    def body(self) -> Body:
        """The body.

        Raises:
            Refusal: ``InvalidParameter`` when it is not a JSON object.
        """
        return Body(self._raw)


Route = Callable[[Call, str], "Reply | Awaitable[Reply]"]

_ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("POST", "/sandboxes", lambda call, _: call.sandboxes.create(call.body, call.key)),
    ("GET", "/sandboxes", lambda call, _: call.sandboxes.list(call.query, paused=call.v2)),
    ("GET", "/sandboxes/metrics", lambda call, _: call.sandboxes.all_metrics(call.query)),
    ("GET", "/sandboxes/{id}", lambda call, name: call.sandboxes.get(name)),
    ("DELETE", "/sandboxes/{id}", lambda call, name: call.sandboxes.kill(name)),
    ("POST", "/sandboxes/{id}/timeout", lambda call, name: call.sandboxes.set_timeout(name, call.body)),
    ("POST", "/sandboxes/{id}/refreshes", lambda call, name: call.sandboxes.refresh(name, call.body)),
    ("POST", "/sandboxes/{id}/connect", lambda call, name: call.sandboxes.connect(name, call.body)),
    ("POST", "/sandboxes/{id}/resume", lambda call, name: call.sandboxes.resume(name, call.body)),
    ("POST", "/sandboxes/{id}/pause", lambda call, name: call.sandboxes.pause(name, call.body)),
    ("POST", "/sandboxes/{id}/snapshots", lambda call, name: call.sandboxes.snapshot(name, call.body)),
    ("POST", "/sandboxes/{id}/fork", lambda call, name: call.sandboxes.fork(name, call.body)),
    ("GET", "/sandboxes/{id}/metrics", lambda call, name: call.sandboxes.metrics(name, call.query)),
    ("GET", "/sandboxes/{id}/logs", lambda call, name: call.sandboxes.logs(name)),
    ("PUT", "/sandboxes/{id}/network", lambda call, name: call.sandboxes.network(name, call.body)),
    ("GET", "/snapshots", lambda call, _: call.templates.snapshots(call.query)),
    ("GET", "/templates", lambda call, _: call.templates.list()),
    ("GET", "/templates/aliases/{id}", lambda call, name: call.templates.alias(name)),
    ("GET", "/templates/{id}", lambda call, name: call.templates.get(name)),
    ("DELETE", "/templates/{id}", lambda call, name: call.templates.delete(name)),
)
#: What only E2B has, and what to use with AGS instead.
_ABSENT = (
    (re.compile(r"/volumes(/.*)?"), "volumes", "a tool's StorageMounts"),
    (re.compile(r"/templates(/.*)?|/default-templates"), "builds and tags of templates", "CreateSandboxTool"),
    (re.compile(r"/secrets(/.*)?"), "secrets", "variables of the environment"),
    (re.compile(r"/(teams|access-tokens|api-keys|nodes)(/.*)?"), "teams and their keys", "CreateAPIKey"),
)
_COMPILED = [
    (method, re.compile(re.escape(route).replace(r"\{id\}", "([^/]+)")), f"{method} {route}", handle)
    for method, route, handle in _ROUTES
]


class E2bApi:
    """E2B's API over one world.

    Args:
        world: The world.
        domain: Below which clients reach ports of sandboxes, ``{port}-{sandbox}.{domain}``.
    """

    def __init__(self, world: World, domain: str | None) -> None:
        self._world = world
        self._domain = domain

    @staticmethod
    def operation(method: str, path: str) -> str | None:
        """Return the route that a request takes, such as ``POST /sandboxes``, or None."""
        return _find(method, path)[0]

    async def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        """Return the response.

        Args:
            method: The HTTP method.
            path: The path, undecoded.
            query: The query string.
            headers: The headers, by lower-case names.
            raw: The whole body.
        """
        operation, name, handle = _find(method, path)
        try:
            self._check_key(headers)
            if handle is None:
                return _unknown(method, path)
            if len(raw) > MOST_BYTES:
                return _error(413, f"the body has more than {MOST_BYTES} bytes")
            region = self._region(headers.get("host", ""))
            self._world.limits.pass_request(operation or "", region.name)
            call = Call(self._world, region, self._domain, path, query, headers, raw)
            reply = handle(call, name)
            return reply if isinstance(reply, Reply) else await reply
        except Refusal as refusal:
            return _error(status_of(refusal), refusal.message)
        except Exception:
            logger.exception("the request %s failed", operation)
            return _error(500, "Internal server error")

    def _check_key(self, headers: Mapping[str, str]) -> None:
        key = headers.get("x-api-key", "")
        if not key and headers.get("authorization", "").lower().startswith("bearer "):
            key = headers["authorization"][len("bearer ") :].strip()
        if not key:
            raise Refusal("AuthFailure", "API key is missing: send it in the header X-API-KEY.")
        if not self._world.api_keys.accepts(key):
            raise Refusal("AuthFailure", "Invalid API key.")

    def _region(self, host: str) -> Region:
        """Return the region that the host names (``api.{region}.…``), or the default one."""
        match = re.match(r"api\.([a-z]{2,3}-[a-z]+(?:-[a-z0-9]+)*)\.", host)
        return self._world.region(match[1] if match else self._world.settings.region)


def _plain(path: str) -> str:
    return re.sub(r"^/v[23](?=/)", "", path).rstrip("/") or "/"


def _find(method: str, path: str) -> tuple[str | None, str, Route | None]:
    plain = _plain(path)
    for verb, pattern, operation, handle in _COMPILED:
        match = pattern.fullmatch(plain)
        if match is not None and verb == method:
            return operation, unquote(match[1]) if match.groups() else "", handle
    return None, "", None


def _unknown(method: str, path: str) -> Reply:
    plain = _plain(path)
    for pattern, what, instead in _ABSENT:
        if pattern.fullmatch(plain):
            return _error(404, f"AGS has no {what}; use {instead} ({method} {path[:200]})")
    known = any(pattern.fullmatch(plain) for _, pattern, _, _ in _COMPILED)
    status, what = (405, "method not allowed") if known else (404, "route not found")
    return _error(status, f"{what}: {method} {path[:200]}")


def _error(status: int, message: str) -> Reply:
    body: dict[str, Any] = {"code": status, "message": message}
    return Reply(status, body)
