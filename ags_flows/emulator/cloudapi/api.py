"""One request of the Cloud API: read, checked and executed.

Errors have HTTP status 200, as the Cloud API does: ``{"Response": {"Error": {...}, "RequestId": ...}}``.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from typing import Any

from starlette.requests import Request

from ags_flows.emulator.cloudapi import schema, signature
from ags_flows.emulator.cloudapi.actions import ACTIONS, WITHOUT_REGION
from ags_flows.emulator.cloudapi.query import parsed
from ags_flows.emulator.http import MOST_BYTES, Answer, JsonResponse, raw_query
from ags_flows.emulator.world.faults import Fault
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.world import World

Json = dict[str, Any]
logger = logging.getLogger("ags_flows.emulator")

VERSION = "2025-09-20"


class CloudApi:
    """The Cloud API over one world."""

    plane = "cloud"

    def __init__(self, world: World) -> None:
        self._world = world

    @staticmethod
    def operation(request: Request) -> str:
        """Return the action that a request names."""
        return request.headers.get("x-tc-action") or f"{request.method} /"

    def failed(self, request: Request, fault: Fault) -> Answer:
        """Return the error of a fault."""
        return _answer({"Error": {"Code": fault.code, "Message": fault.message}}, f"fault-{fault.fault_id}")

    async def answer(self, request: Request, body: bytes) -> Answer:
        """Return the response to a request."""
        try:
            response = await self._carry_out(request, body)
        except Refusal as refusal:
            response = {"Error": {"Code": self._world.profile.code(refusal.code), "Message": refusal.message}}
        except Exception:
            logger.exception("the action %s failed", self.operation(request))
            response = {"Error": {"Code": "InternalError", "Message": "Internal server error"}}
        return _answer(response, str(uuid.uuid4()))

    async def _carry_out(self, http: Request, body: bytes) -> Json:
        method, headers = http.method, http.headers
        if method not in ("POST", "GET"):
            raise Refusal("UnsupportedProtocol", "The HTTP method must be POST or GET.")
        action = headers.get("x-tc-action", "")
        if not action:
            raise Refusal("MissingParameter", "The request is missing a required parameter `X-TC-Action`.")
        if len(body) > MOST_BYTES:
            raise Refusal("RequestSizeLimitExceeded", f"The request has more than {MOST_BYTES} bytes.")
        settings = self._world.settings
        signature.check(http, body, settings.secret_id, settings.secret_key)
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
            request = schema.checked(action, parsed(action, raw_query(http.scope)))
        else:
            request = schema.checked(action, _parsed(headers.get("content-type", ""), body))
        if not name and action == "AcquireSandboxInstanceToken":
            instance = self._world.find_instance(request.get("InstanceId") or "")
            region = self._world.region(instance.region) if instance is not None else region
        self._world.limits.pass_request(action, region.name)
        return await carry_out(region, request)


def _answer(response: Json, request_id: str) -> Answer:
    outcome = response["Error"]["Code"] if "Error" in response else "ok"
    return Answer(JsonResponse({"Response": {**response, "RequestId": request_id}}), outcome, request_id)


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
