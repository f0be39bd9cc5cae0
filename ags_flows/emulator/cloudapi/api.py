"""One request of the Cloud API: read, checked and executed.

Errors have HTTP status 200, as the Cloud API does: ``{"Response": {"Error": {...}, "RequestId": ...}}``.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Mapping
from typing import Any

from ..world.refusal import Refusal
from ..world.world import World
from . import schema, signature
from .actions import ACTIONS, WITHOUT_REGION
from .query import parsed

Json = dict[str, Any]
logger = logging.getLogger("ags_flows.emulator")

VERSION = "2025-09-20"
#: The most that the Cloud API takes of a request signed with TC3.
MOST_BYTES = 10 * 1024 * 1024


class CloudApi:
    """The Cloud API over one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Json:
        """Return the body of the response.

        Args:
            method: The HTTP method.
            path: The path, undecoded.
            query: The query string.
            headers: The headers, by lower-case names.
            body: The whole body.
        """
        try:
            response = await self._carry_out(method, path, query, headers, body)
        except Refusal as refusal:
            response = {"Error": {"Code": self._world.profile.code(refusal.code), "Message": refusal.message}}
        except Exception:
            logger.exception("the action %s failed", headers.get("x-tc-action"))
            response = {"Error": {"Code": "InternalError", "Message": "Internal server error"}}
        return {"Response": {**response, "RequestId": str(uuid.uuid4())}}

    async def _carry_out(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Json:
        if method not in ("POST", "GET"):
            raise Refusal("UnsupportedProtocol", "The HTTP method must be POST or GET.")
        action = headers.get("x-tc-action", "")
        if not action:
            raise Refusal("MissingParameter", "The request is missing a required parameter `X-TC-Action`.")
        if len(body) > MOST_BYTES:
            raise Refusal("RequestSizeLimitExceeded", f"The request has more than {MOST_BYTES} bytes.")
        settings = self._world.settings
        signature.check(
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body,
            secret_id=settings.secret_id,
            secret_key=settings.secret_key,
        )
        version = headers.get("x-tc-version", "")
        if not version:
            raise Refusal("MissingParameter", "The request is missing a required parameter `X-TC-Version`.")
        if version != VERSION:
            raise Refusal("NoSuchVersion", f"The version {version[:40]!r} does not exist; there is {VERSION}.")
        carry_out = ACTIONS.get(action)
        if carry_out is None:
            if action in schema.actions():
                raise Refusal("UnsupportedOperation", f"The emulator does not serve the action {action}.")
            raise Refusal("InvalidAction", f"The request action=`{action[:80]}` is invalid or not found.")
        name = headers.get("x-tc-region", "")
        if not name and action not in WITHOUT_REGION:
            raise Refusal("MissingParameter", "The request is missing a required parameter `X-TC-Region`.")
        region = self._world.region(name or settings.region)
        if method == "GET":
            request = schema.checked(action, parsed(action, query))
        else:
            request = schema.checked(action, _parsed(headers.get("content-type", ""), body))
        if not name and action == "AcquireSandboxInstanceToken":
            instance = self._world.find_instance(request.get("InstanceId") or "")
            region = self._world.region(instance.region) if instance is not None else region
        self._world.limits.pass_request(action, region.name)
        return await carry_out(region, request)


def _parsed(content_type: str, body: bytes) -> Any:
    if not re.fullmatch(r"\s*application/json\s*(;.*)?", content_type, re.IGNORECASE):
        raise Refusal("UnsupportedProtocol", "The Content-Type must be application/json.")
    if not body.strip():
        return {}
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal("InvalidParameter", f"The request body is not valid JSON: {str(error)[:200]}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
