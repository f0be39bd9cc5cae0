"""The map of errors is total: every code of the SDK has a class that was chosen for it."""

import pytest
from tencentcloud.ags.v20250920 import errorcodes

from ags_flows.cloud.error_mapping import CODES, FAMILIES, map_error, map_status, meaning_of
from ags_flows.errors import (
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

CONSTANTS = sorted(value for name, value in vars(errorcodes).items() if name.isupper())

EXPECTED = {
    "AuthFailure": CredentialsError,
    "UnauthorizedOperation": CredentialsError,
    "FailedOperation": ServiceError,
    "InternalError": ServiceError,
    "InvalidParameter": InvalidRequestError,
    "InvalidParameterValue": InvalidRequestError,
    "MissingParameter": InvalidRequestError,
    "UnknownParameter": InvalidRequestError,
    "LimitExceeded": QuotaExceededError,
    "RequestLimitExceeded": ThrottledError,
    "ResourceInUse": ConflictError,
    "ResourceNotFound": NotFoundError,
    "ResourceUnavailable": ServiceError,
    "UnsupportedOperation": ConflictError,
}

EXCEPTIONS = {
    "FailedOperation.DuplicateRequest": DuplicateRequestError,
    "FailedOperation.RequestInProgress": RequestInProgressError,
    "FailedOperation.PrecacheFailed": InvalidRequestError,
    "FailedOperation.StorageMount": InvalidRequestError,
    "InvalidParameterValue.SandboxTool": ConflictError,
    "ResourceUnavailable.SandboxTool": ConflictError,
}

COMMON = {
    "ActionOffline": UnsupportedError,
    "AuthFailure.InvalidAuthorization": CredentialsError,
    "AuthFailure.InvalidSecretId": CredentialsError,
    "AuthFailure.MFAFailure": CredentialsError,
    "AuthFailure.SecretIdNotFound": CredentialsError,
    "AuthFailure.SignatureExpire": CredentialsError,
    "AuthFailure.SignatureFailure": CredentialsError,
    "AuthFailure.TokenFailure": CredentialsError,
    "ClientNetworkError": UnreachableError,
    "ClientParamsError": InvalidRequestError,
    "InternalError.GatewayTimeout": ServiceError,
    "InvalidAction": UnsupportedError,
    "InvalidRequest": InvalidRequestError,
    "IpInBlacklist": CredentialsError,
    "IpNotInWhitelist": CredentialsError,
    "LimitExceeded.SomethingNew": QuotaExceededError,
    "NoSuchProduct": UnsupportedError,
    "NoSuchVersion": UnsupportedError,
    "RequestLimitExceeded.GlobalRegionUinLimitExceeded": ThrottledError,
    "RequestLimitExceeded.IPLimitExceeded": ThrottledError,
    "RequestLimitExceeded.UinLimitExceeded": ThrottledError,
    "RequestSizeLimitExceeded": InvalidRequestError,
    "ResourceInsufficient": QuotaExceededError,
    "ResourcesSoldOut": QuotaExceededError,
    "ResponseSizeLimitExceeded": InvalidRequestError,
    "ServerNetworkError": UnreachableError,
    "ServiceUnavailable": ServiceError,
    "UnsupportedProtocol": UnsupportedError,
    "UnsupportedRegion": UnsupportedError,
}

URL = "https://ags.tencentcloudapi.com"


def mapped(code, message="what happened", request_id="req-1", url=URL):
    return map_error("StartSandboxInstance", code, message, request_id, url)


@pytest.mark.parametrize("code", CONSTANTS)
def test_every_code_of_the_sdk_has_the_class_that_was_chosen_for_it(code):
    assert code in CODES or code.split(".")[0] in FAMILIES
    assert meaning_of(code).error is EXCEPTIONS.get(code, EXPECTED[code.split(".")[0]])


@pytest.mark.parametrize("code", COMMON)
def test_the_common_codes_of_the_cloud_api_and_of_its_client_have_one_too(code):
    assert meaning_of(code).error is COMMON[code]


@pytest.mark.parametrize("code", ["", "SomethingNew", "SomethingNew.Else"])
def test_an_unknown_code_is_an_error_that_is_not_retried(code):
    error = mapped(code)
    assert type(error) is InvalidRequestError and not error.retryable and "what happened" in str(error)


@pytest.mark.parametrize("code", [*CONSTANTS, *COMMON])
def test_every_error_has_the_cause_the_request_id_and_a_hint(code):
    error = mapped(code, message="Internal server error")
    assert error.hint and error.hint[0].isupper() and error.hint.endswith((".", "?", ")"))
    assert error.code == code and "StartSandboxInstance" in error.message
    if not isinstance(error, UnreachableError):
        assert error.request_id == "req-1" and "RequestId req-1" in str(error)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AuthFailure.SignatureFailure", "TENCENTCLOUD_SECRET_KEY.*clock"),
        ("AuthFailure.SignatureExpire", "clock"),
        ("AuthFailure.UnauthorizedOperation", r"ags:\*"),
        ("UnauthorizedOperation", r"ags:\*"),
        ("LimitExceeded.SandboxInstance", "Stop instances.*ags-flows ps.*10 concurrently"),
        ("ResourceInUse.SandboxTool", "Stop its instances first"),
        ("MissingParameter.RoleArn", "role_arn"),
        ("MissingParameter.VPCParameters", "subnet_ids and security_group_ids"),
        ("ResourceUnavailable.SandboxTool", "ACTIVE"),
        ("NoSuchVersion", "tencentcloud-sdk-python-ags"),
        ("UnsupportedRegion", "region"),
    ],
)
def test_the_advice_fits_the_code(code, advice):
    with pytest.raises(meaning_of(code).error, match=advice):
        raise mapped(code)


def test_what_may_be_repeated_is_a_matter_of_the_class():
    retryable = {code for code in CONSTANTS if mapped(code).retryable}
    assert "InternalError.VPCServiceUnavailable" in retryable and "RequestLimitExceeded" in retryable
    assert "ResourceUnavailable.ImagePreheating" in retryable
    assert not retryable & {"AuthFailure", "InvalidParameter", "ResourceNotFound", "ResourceInUse.SandboxTool"}


def test_a_request_id_that_stands_in_the_message_only_is_found():
    message = "Internal server error, RequestId: 3f1c5a2e-0000-4000-8000-1234567890ab"
    assert mapped("InternalError", message, request_id=None).request_id == "3f1c5a2e-0000-4000-8000-1234567890ab"


@pytest.mark.parametrize(
    ("message", "url", "advice"),
    [
        ("[Errno 111] Connection refused", "http://127.0.0.1:8600", "emulator"),
        ("[Errno 111] Connection refused", URL, "proxy"),
        ("Name or service not known", URL, "spelling"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", URL, "certificate"),
        ("Read timed out. (read timeout=60)", URL, "network"),
        ("", URL, "network"),
    ],
)
def test_an_error_of_the_network_has_the_url_and_a_hint(message, url, advice):
    error = mapped("ClientNetworkError", message, None, url)
    assert isinstance(error, UnreachableError) and url in str(error) and advice in error.hint


def test_a_status_of_a_gateway_is_reported_in_short():
    error = map_status("StopSandboxInstance", 504, "<html>\n" + "x" * 5000, None, URL)
    assert isinstance(error, ServiceError) and "HTTP status 504" in str(error) and len(str(error)) < 500
