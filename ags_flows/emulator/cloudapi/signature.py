"""TC3-HMAC-SHA256: checks the signature of a request."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from datetime import datetime, timezone

from starlette.requests import Request

from ags_flows.emulator.http import raw_path, raw_query
from ags_flows.emulator.world.refusal import Refusal

_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256\s+Credential=([^/\s,]*)/([^/\s,]*)/([^/\s,]*)/tc3_request\s*,"
    r"\s*SignedHeaders=([^\s,]*)\s*,\s*Signature=([0-9a-fA-F]*)\s*"
)
_SERVICE = "ags"
_SKEW = 300


def check(request: Request, body: bytes, secret_id: str, secret_key: str) -> None:
    """Check a request's signature.

    The time is the machine's, not the emulator's: a client signs with its own clock, which tests do not advance.

    Args:
        request: The request.
        body: Its whole body.
        secret_id: The account's key id.
        secret_key: The account's secret.

    Raises:
        Refusal: ``AuthFailure.*`` or ``MissingParameter``, as the Cloud API has them.
    """
    headers = request.headers
    authorization = headers.get("authorization", "")
    if not authorization:
        raise Refusal("MissingParameter", "The request is missing a required parameter `Authorization`.")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise Refusal(
            "AuthFailure.InvalidAuthorization", "The Authorization header is not TC3-HMAC-SHA256 as documented."
        )
    given_id, date, service, signed, signature = match.groups()
    stamp = headers.get("x-tc-timestamp", "")
    if not re.fullmatch(r"\d{1,12}", stamp, re.ASCII):
        raise Refusal("MissingParameter", "The request is missing a required parameter `X-TC-Timestamp`.")
    if abs(time.time() - int(stamp)) > _SKEW:
        raise Refusal(
            "AuthFailure.SignatureExpire",
            f"The signature has expired: X-TC-Timestamp {stamp} and the server's time differ by more than 5 minutes.",
        )
    host = headers.get("host", "")
    # Tencent's SDK for Node.js takes the service from the endpoint, whatever that is.
    services = (_SERVICE, host.split(".")[0])
    if date != datetime.fromtimestamp(int(stamp), timezone.utc).strftime("%Y-%m-%d") or service not in services:
        raise Refusal(
            "AuthFailure.SignatureFailure",
            f"The credential scope must be the date of X-TC-Timestamp and {_SERVICE}/tc3_request.",
        )
    if not hmac.compare_digest(given_id.encode(), secret_id.encode()):
        raise Refusal(
            "AuthFailure.SecretIdNotFound", "The SecretId is not found; check that it is that of this account."
        )
    names = signed.lower().split(";")
    if "content-type" not in names or "host" not in names:
        raise Refusal("AuthFailure.SignatureFailure", "SignedHeaders must hold content-type and host.")
    unsigned = headers.get("x-tc-content-sha256") == "UNSIGNED-PAYLOAD"
    payload = b"UNSIGNED-PAYLOAD" if unsigned else (b"" if request.method == "GET" else body)
    # A content type is compared without regard to case; the SDK signs host and content type as sent.
    # The one for Node.js signs the host without the port.
    path, query = raw_path(request.scope) or "/", raw_query(request.scope)
    start, digest = f"{request.method}\n{path}\n{query}\n", hashlib.sha256(payload).hexdigest()

    def signs(as_host: str) -> bool:
        values = {**headers, "host": as_host}
        lines = "".join(f"{name}:{values.get(name, '').strip()}\n" for name in names)
        expected = _sign(secret_key, f"{date}/{service}", stamp, f"{start}{lines}\n{signed}\n{digest}")
        return hmac.compare_digest(expected, signature.lower())

    if not any([signs(host), signs(re.sub(r":\d+$", "", host))]):
        raise Refusal(
            "AuthFailure.SignatureFailure",
            "The provided credentials could not be validated. Please check your signature is correct.",
        )


def _sign(secret_key: str, date_and_service: str, stamp: str, canonical: str) -> str:
    scope = f"{date_and_service}/tc3_request"
    to_sign = f"TC3-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"TC3{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
