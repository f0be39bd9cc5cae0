"""The errors for requests that the gateway, or the server behind it, did not execute."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from ags_flows.cloud.statuses import THROTTLED, is_inconclusive
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    InvalidRequestError,
    OutcomeUnknownError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
    UnreachableError,
    UnsupportedError,
)

_CLOSED_PORT = re.compile(r"port\b.*\bnot open|connection refused", re.IGNORECASE | re.DOTALL)
_LOOK = "Look what it did (read a file, or ask in another shell) before you run it again."


def of_lost_connection(instance_id: str, endpoint: str, error: Exception, unknown: bool) -> AGSFlowsError:
    """Return the error for a connection that broke.

    Args:
        instance_id: The instance, which lives according to AGS.
        endpoint: The endpoint of the server.
        error: The error of the HTTP client.
        unknown: Whether the request was sent and may not be sent again.
    """
    told = " ".join(str(error).split()) or type(error).__name__
    text = f"{endpoint} in {instance_id}: no response ({told.rstrip('.')})."
    if unknown:
        return OutcomeUnknownError(f"{text} The request was sent and may have been executed.", hint=_LOOK)
    return UnreachableError(text, hint="Check the network; it may be repeated.")


def of_status(instance_id: str, endpoint: str, answer: httpx.Response, unknown: bool) -> AGSFlowsError:
    """Return the error for a response with a status other than 200.

    Args:
        instance_id: The instance, which lives according to AGS.
        endpoint: The endpoint of the server.
        answer: The response.
        unknown: Whether a request that may have been executed may not be sent again.
    """
    status, told = answer.status_code, _told(answer)
    text = f"{endpoint} in {instance_id}: status {status}, {told.rstrip('.')}."
    if status in (401, 403):
        return TokenExpiredError(text, hint="A new token was acquired and refused again: check the region.")
    if status == 404:
        return UnsupportedError(text, hint="The program on this port is not a SWE-ReX server, or has another version.")
    if status == 409:
        return ConflictError(text, hint="A paused sandbox has to be resumed first.")
    if status == THROTTLED:
        return ThrottledError(text, hint="Fewer concurrent calls avoid it.")
    if not is_inconclusive(status):
        return InvalidRequestError(text, hint="The server may have another version of swe-rex than this client.")
    if _CLOSED_PORT.search(told):
        return ServiceError(text, hint="The server in the sandbox has ended: look at its log there.")
    if unknown:
        return OutcomeUnknownError(f"{text} The request may have been executed.", hint=_LOOK)
    return ServiceError(text, hint="It may be repeated.")


def of_nonsense(instance_id: str, endpoint: str, error: Exception) -> AGSFlowsError:
    """Return the error for a response that is not one of SWE-ReX."""
    told = " ".join(str(error).split())[:300]
    return UnsupportedError(
        f"{endpoint} in {instance_id}: the response is not one of SWE-ReX ({told}).",
        hint="Check which program listens on this port, and its version.",
    )


def transfer_in(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the exception that a response carries, or None."""
    told = _parsed(answer).get("swerexception")
    return told if isinstance(told, dict) else None


def _parsed(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(answer.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _told(answer: httpx.Response) -> str:
    body = _parsed(answer)
    text = body.get("message") or body.get("detail") or answer.text or answer.reason_phrase
    return " ".join(str(text).split())[:300]
