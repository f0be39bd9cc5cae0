"""The control plane's errors as ours: one total map, from codes of the Cloud API and of its SDK.

A code is looked up whole, then by its family (the part before the first dot). A code that is in neither became known
after this version: it counts as a refused request that is not retried, since repeating an unknown request
rarely helps. Codes of the family `InternalError` are the exception by their family.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ags_flows.cloud.proxies import shown_proxy
from ags_flows.cloud.statuses import THROTTLED, is_inconclusive
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    CredentialsError,
    DuplicateRequestError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RequestInProgressError,
    ServiceError,
    ThrottledError,
    UnreachableError,
    UnsupportedError,
)


class Meaning(NamedTuple):
    """What a code means to us, and what its reader can do."""

    error: type[AGSFlowsError]
    hint: str | None = None


_AGAIN = "It is retried; if it stays, give the RequestId to the support of AGS."
_KEYS = "Check TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or the TencentCloudCredentials block."
_PERMISSION = "Give the CAM user or role the permission ags:* (or the single action)."
IMAGE_CAUSES = (
    "The usual causes: the image or its tag does not exist, or is not for linux/amd64; image_registry_type does not "
    "fit the registry (enterprise: *.tencentcloudcr.com, personal: ccr.ccs.tencentyun.com, custom: others); role_arn "
    "is missing or may not pull (it needs tcr:DescribeInstances, tcr:DescribeImages, tcr:CreateInstanceToken)."
)
_REGISTRY = IMAGE_CAUSES
_PARAMETER = "Correct the argument; the same request will be refused again."
_ROLE = "Set role_arn (or TENCENTCLOUD_ROLE_ARN): private registries, mounts and logs need a CAM role."

FAMILIES: dict[str, Meaning] = {
    "AuthFailure": Meaning(CredentialsError, _KEYS),
    "UnauthorizedOperation": Meaning(CredentialsError, _PERMISSION),
    "InvalidParameter": Meaning(InvalidRequestError, _PARAMETER),
    "InvalidParameterValue": Meaning(InvalidRequestError, _PARAMETER),
    "MissingParameter": Meaning(InvalidRequestError, "Give the argument that the message names."),
    "UnknownParameter": Meaning(InvalidRequestError, "This region's AGS does not know the argument yet."),
    "InvalidRequest": Meaning(InvalidRequestError, _PARAMETER),
    "InvalidAction": Meaning(UnsupportedError, "This endpoint does not know the action: check http_endpoint."),
    "ActionOffline": Meaning(UnsupportedError, "AGS has withdrawn this action."),
    "NoSuchVersion": Meaning(UnsupportedError, "Update the package tencentcloud-sdk-python-ags."),
    "NoSuchProduct": Meaning(UnsupportedError, "Check http_endpoint: this is not an endpoint of AGS."),
    "UnsupportedProtocol": Meaning(UnsupportedError, "Use https, or http for an emulator."),
    "UnsupportedRegion": Meaning(UnsupportedError, "AGS is not in this region: choose another one."),
    "UnsupportedOperation": Meaning(ConflictError, "The resource is in a state that does not allow this."),
    "LimitExceeded": Meaning(QuotaExceededError, "Free some first, or ask for a higher quota."),
    "RequestLimitExceeded": Meaning(ThrottledError, "It is retried; fewer concurrent calls avoid it."),
    "ResourceNotFound": Meaning(NotFoundError, "Check the id or name, and the region."),
    "ResourceInUse": Meaning(ConflictError, "End what uses it first."),
    "ResourceUnavailable": Meaning(ServiceError, _AGAIN),
    "ResourceInsufficient": Meaning(QuotaExceededError, "AGS has no capacity at the moment; it is retried."),
    "ResourcesSoldOut": Meaning(QuotaExceededError, "AGS has no capacity at the moment; it is retried."),
    "FailedOperation": Meaning(ServiceError, _AGAIN),
    "InternalError": Meaning(ServiceError, _AGAIN),
    "ServiceUnavailable": Meaning(ServiceError, _AGAIN),
    "DryRunOperation": Meaning(InvalidRequestError, None),
    "IpInBlacklist": Meaning(CredentialsError, "This machine's IP address is on the account's deny list."),
    "IpNotInWhitelist": Meaning(CredentialsError, "This machine's IP address is not on the account's allow list."),
    "RequestSizeLimitExceeded": Meaning(InvalidRequestError, "The request is too large."),
    "ResponseSizeLimitExceeded": Meaning(InvalidRequestError, "Ask for fewer items per request."),
    "ClientNetworkError": Meaning(UnreachableError, None),
    "ServerNetworkError": Meaning(UnreachableError, None),
    "ClientParamsError": Meaning(InvalidRequestError, _PARAMETER),
    "ClientError": Meaning(InvalidRequestError, _PARAMETER),
    "InvalidCredential": Meaning(CredentialsError, _KEYS),
}
"""By the part of a code before its first dot."""

CODES: dict[str, Meaning] = {
    "AuthFailure.SignatureFailure": Meaning(CredentialsError, f"{_KEYS} Check this machine's clock too."),
    "AuthFailure.SignatureExpire": Meaning(CredentialsError, "Set this machine's clock: it is off by minutes."),
    "AuthFailure.SecretIdNotFound": Meaning(CredentialsError, _KEYS),
    "AuthFailure.TokenFailure": Meaning(CredentialsError, "The temporary keys have expired: get new ones."),
    "AuthFailure.UnauthorizedOperation": Meaning(CredentialsError, _PERMISSION),
    "AuthFailure.Registry": Meaning(CredentialsError, _REGISTRY),
    "MissingParameter.VPCParameters": Meaning(
        InvalidRequestError, "Network mode VPC needs both subnet_ids and security_group_ids."
    ),
    "MissingParameter.RoleArn": Meaning(InvalidRequestError, _ROLE),
    "InvalidParameterValue.RoleArn": Meaning(InvalidRequestError, _ROLE),
    "InvalidParameterValue.Image": Meaning(InvalidRequestError, _REGISTRY),
    "InvalidParameterValue.OffsetTooLarge": Meaning(InvalidRequestError, "Narrow the list down by name, tag or state."),
    "InvalidParameterValue.Timeout": Meaning(InvalidRequestError, "AGS takes timeouts from 30s to 24h."),
    "InvalidParameterValue.SandboxTool": Meaning(
        ConflictError, "The name may be taken: use that tool (ensure_tool), or choose another name."
    ),
    "FailedOperation.DuplicateRequest": Meaning(DuplicateRequestError, "What the first request made is looked up."),
    "FailedOperation.RequestInProgress": Meaning(RequestInProgressError, "Repeat it with the same ClientToken."),
    "FailedOperation.PrecacheFailed": Meaning(InvalidRequestError, _REGISTRY),
    "FailedOperation.StorageMount": Meaning(InvalidRequestError, "Check the mounts and that role_arn may use them."),
    "LimitExceeded.SandboxInstance": Meaning(
        QuotaExceededError,
        "Stop instances first (`ags-flows ps` shows them, `ags-flows stop` ends them), or ask for a higher "
        "quota: a new account may run 10 concurrently.",
    ),
    "LimitExceeded.APIKeyQuota": Meaning(QuotaExceededError, "Delete an API key first; they count across regions."),
    "ResourceInUse.SandboxTool": Meaning(ConflictError, "Stop its instances first, and wait until they are STOPPED."),
    "InvalidParameterValue.ImageRegistry": Meaning(InvalidRequestError, _REGISTRY),
    "ResourceNotFound.Image": Meaning(NotFoundError, _REGISTRY),
    "ResourceNotFound.StorageMount": Meaning(NotFoundError, "Mount options can only name mounts that the tool has."),
    "ResourceUnavailable.ImagePreheating": Meaning(ServiceError, "The image is being made ready; it is retried."),
    "ResourceUnavailable.SandboxTool": Meaning(ConflictError, "Wait until the tool is ACTIVE (wait_tool_active)."),
    "UnsupportedOperation.SandboxInstance": Meaning(
        ConflictError, "The instance is in a state that does not allow this: only RUNNING ones can be changed."
    ),
}
"""Codes with another meaning than their family."""

_REQUEST_IN_MESSAGE = re.compile(r"[Rr]equest_?[Ii]d[:=]\s*([0-9a-fA-F-]{8,})")


def meaning_of(code: str) -> Meaning:
    """Return the meaning of a code; an unknown code is an InvalidRequestError."""
    return CODES.get(code) or FAMILIES.get(code.split(".", 1)[0]) or Meaning(InvalidRequestError, None)


def map_error(
    action: str,
    code: str,
    message: str,
    request_id: str | None,
    url: str,
    retry_after: float | None = None,
) -> AGSFlowsError:
    """Return our error for one of the control plane.

    Args:
        action: The action that was called.
        code: The code of the Cloud API, or of its SDK.
        message: Its message; that of a system error is only "Internal server error".
        request_id: Known if the server was reached.
        url: The control plane's URL, for errors of the network.
        retry_after: Seconds, if the response has them.
    """
    meaning = meaning_of(code)
    if request_id is None and (found := _REQUEST_IN_MESSAGE.search(message or "")):
        request_id = found[1]
    if meaning.error is UnreachableError:
        cause, proxy = _cause(message), shown_proxy(url)
        if proxy:
            text = f"{action}: no response from {url} through the proxy {proxy} ({cause})."
            return UnreachableError(text, hint="Check the proxy, and the variables that name it.", code=code)
        return UnreachableError(
            f"{action}: no response from {url} ({cause}).", hint=_network_hint(url, cause), code=code
        )
    text = f"{action}: {(message or 'no message').strip().rstrip('.')}."
    return meaning.error(text, hint=meaning.hint, code=code, request_id=request_id, retry_after=retry_after)


def map_status(action: str, status: int, body: str, retry_after: float | None, url: str) -> AGSFlowsError:
    """Return our error for an HTTP status other than 200: AGS sends its errors with status 200, gateways do not."""
    shown = " ".join(body.split())[:200]
    text = f"{action}: {url} responded with HTTP status {status}" + (f": {shown}." if shown else ".")
    code = f"HTTP.{status}"
    if status == THROTTLED:
        return ThrottledError(text, hint=FAMILIES["RequestLimitExceeded"].hint, code=code, retry_after=retry_after)
    if is_inconclusive(status):
        return ServiceError(text, hint=_AGAIN, code=code, retry_after=retry_after)
    hint = "Check http_endpoint, and whether a proxy or a gateway responds in its place."
    return InvalidRequestError(text, hint=hint, code=code)


def _network_hint(url: str, cause: str) -> str:
    if url.startswith("http://"):
        return "Is the emulator running there (`ags-flows emulator`), and is AGS_ENDPOINT its URL?"
    if "CERTIFICATE" in cause:
        return "The server has another certificate: check the endpoint, and proxies that decrypt TLS."
    if "resolution" in cause.lower() or "not known" in cause:
        return "Check the endpoint's spelling, and this machine's DNS."
    return "Check the network, the proxy variables, and the endpoint."


_CAUSES = (
    "Connection refused",
    "CERTIFICATE_VERIFY_FAILED",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Connection reset by peer",
    "Remote end closed connection without response",
    "timed out",
)


def _cause(message: str) -> str:
    """Return the innermost cause of a network error, which the HTTP library wraps several times."""
    for known in _CAUSES:
        if known.lower() in message.lower():
            return known
    return " ".join(message.split())[-200:]
