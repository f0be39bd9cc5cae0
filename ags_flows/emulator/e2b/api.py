"""The routes of E2B's API, with and without ``/v2``, and the check of API keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from ags_flows.emulator.e2b.body import Body, Query
from ags_flows.emulator.e2b.sandboxes import Sandboxes
from ags_flows.emulator.e2b.shapes import status_of
from ags_flows.emulator.e2b.templates import Templates
from ags_flows.emulator.http import Answer, JsonResponse, raw_path, raw_query
from ags_flows.emulator.world.faults import Fault
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.region import Region
from ags_flows.emulator.world.world import World

logger = logging.getLogger("ags_flows.emulator")

MOST_BYTES = 4 * 1024 * 1024
"""More than any request of E2B's API needs."""


class Call:
    """One request, as a route reads it. The body is parsed when a route reads it."""

    def __init__(
        self, world: World, region: Region, domain: str | None, request: Request, name: str, raw: bytes
    ) -> None:
        self.v2 = raw_path(request.scope).startswith("/v2/")
        self.name = name
        self.query = Query(raw_query(request.scope))
        self.key = request.headers.get("idempotency-key") or None
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


# Not routes of Starlette: faults and limits need the route of a request before it is carried out, its name may hold
# an encoded slash, and Starlette would carry out HEAD as GET.
ROUTES: dict[str, Callable[[Call], Response | Awaitable[Response]]] = {
    "POST /sandboxes": lambda call: call.sandboxes.create(call.body, call.key),
    "GET /sandboxes": lambda call: call.sandboxes.list(call.query, paused=call.v2),
    "GET /sandboxes/metrics": lambda call: call.sandboxes.all_metrics(call.query),
    "GET /sandboxes/{id}": lambda call: call.sandboxes.get(call.name),
    "DELETE /sandboxes/{id}": lambda call: call.sandboxes.kill(call.name),
    "POST /sandboxes/{id}/timeout": lambda call: call.sandboxes.set_timeout(call.name, call.body),
    "POST /sandboxes/{id}/refreshes": lambda call: call.sandboxes.refresh(call.name, call.body),
    "POST /sandboxes/{id}/connect": lambda call: call.sandboxes.connect(call.name, call.body),
    "POST /sandboxes/{id}/resume": lambda call: call.sandboxes.resume(call.name, call.body),
    "POST /sandboxes/{id}/pause": lambda call: call.sandboxes.pause(call.name, call.body),
    "POST /sandboxes/{id}/snapshots": lambda call: call.sandboxes.snapshot(call.name, call.body),
    "POST /sandboxes/{id}/fork": lambda call: call.sandboxes.fork(call.name, call.body),
    "GET /sandboxes/{id}/metrics": lambda call: call.sandboxes.metrics(call.name, call.query),
    "GET /sandboxes/{id}/logs": lambda call: call.sandboxes.logs(call.name),
    "PUT /sandboxes/{id}/network": lambda call: call.sandboxes.network(call.name, call.body),
    "GET /snapshots": lambda call: call.templates.snapshots(call.query),
    "GET /templates": lambda call: call.templates.list(),
    "GET /templates/aliases/{id}": lambda call: call.templates.alias(call.name),
    "GET /templates/{id}": lambda call: call.templates.get(call.name),
    "DELETE /templates/{id}": lambda call: call.templates.delete(call.name),
}
_PATTERNS = {route: re.compile(route.replace("{id}", "([^/]+)")) for route in ROUTES}
_ABSENT = (
    (re.compile(r"/volumes(/.*)?"), "volumes", "a tool's StorageMounts"),
    (re.compile(r"/templates(/.*)?|/default-templates"), "builds and tags of templates", "CreateSandboxTool"),
    (re.compile(r"/secrets(/.*)?"), "secrets", "variables of the environment"),
    (re.compile(r"/(teams|access-tokens|api-keys|nodes)(/.*)?"), "teams and their keys", "CreateAPIKey"),
)
"""What only E2B has, and what to use with AGS instead."""


class E2bApi:
    """E2B's API over one world.

    Args:
        world: The world.
        domain: Below which clients reach ports of sandboxes, ``{port}-{sandbox}.{domain}``.
    """

    plane = "e2b"

    def __init__(self, world: World, domain: str | None) -> None:
        self._world = world
        self._domain = domain

    @staticmethod
    def operation(request: Request) -> str:
        """Return the route that a request takes, such as ``POST /sandboxes``."""
        path = raw_path(request.scope)
        return _find(request.method, path)[0] or f"{request.method} {path[:100]}"

    def failed(self, request: Request, fault: Fault) -> Answer:
        """Return the error of a fault."""
        return _answer(request, _error(429 if "LimitExceeded" in fault.code else 500, fault.message))

    async def answer(self, request: Request, body: bytes) -> Answer:
        """Return the response to a request."""
        try:
            response = await self._carry_out(request, body)
        except Refusal as refusal:
            response = _error(status_of(refusal), refusal.message)
        except Exception:
            logger.exception("the request %s failed", self.operation(request))
            response = _error(500, "Internal server error")
        return _answer(request, response)

    async def _carry_out(self, request: Request, body: bytes) -> Response:
        self._check_key(request.headers)
        path = raw_path(request.scope)
        route, name = _find(request.method, path)
        if route is None:
            return _unknown(request.method, path)
        if len(body) > MOST_BYTES:
            return _error(413, f"the body has more than {MOST_BYTES} bytes")
        region = self._region(request.headers.get("host", ""))
        self._world.limits.pass_request(route, region.name)
        response = ROUTES[route](Call(self._world, region, self._domain, request, name, body))
        return response if isinstance(response, Response) else await response

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


def _find(method: str, path: str) -> tuple[str | None, str]:
    """Return the route of a request, and the name in its path."""
    plain = f"{method} {_plain(path)}"
    for route, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(plain):
            return route, unquote(match[1]) if match.groups() else ""
    return None, ""


def _unknown(method: str, path: str) -> Response:
    plain = _plain(path)
    for pattern, what, instead in _ABSENT:
        if pattern.fullmatch(plain):
            return _error(404, f"AGS has no {what}; use {instead} ({method} {path[:200]})")
    known = any(_find(verb, path)[0] for verb in ("GET", "POST", "PUT", "DELETE"))
    status, what = (405, "method not allowed") if known else (404, "route not found")
    return _error(status, f"{what}: {method} {path[:200]}")


def _answer(request: Request, response: Response) -> Answer:
    return Answer(response, str(response.status_code), raw_path(request.scope)[:100])


def _error(status: int, message: str) -> Response:
    return JsonResponse({"code": status, "message": message}, status)
