"""What every request must be: signed, typed, known; and what faults do to it."""

import json
import time

import httpx
import pytest
from tencentcloud.common import sign
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException


def code_of(call, *args, **fields):
    with pytest.raises(TencentCloudSDKException) as caught:
        call(*args, **fields)
    return caught.value.code


def test_wrong_keys_are_refused(cloud_with):
    assert code_of(cloud_with(secret_id="AKIDnobody"), "DescribeSandboxToolList") == "AuthFailure.SecretIdNotFound"
    assert code_of(cloud_with(secret_key="wrong"), "DescribeSandboxToolList") == "AuthFailure.SignatureFailure"


def test_temporary_credentials_are_taken(cloud_with):
    assert cloud_with(token="session-token")("DescribeSandboxToolList")["TotalCount"] == 2


def test_a_payload_may_be_left_unsigned(cloud):
    cloud.client.profile.unsignedPayload = True
    assert cloud("DescribeSandboxToolList")["TotalCount"] == 2


def test_requests_may_come_by_get(cloud):
    cloud.client.profile.httpProfile.reqMethod = "GET"
    filters = [{"Name": "ToolName", "Values": ["base", "a tool & more = ä"]}]
    assert cloud("DescribeSandboxToolList", Filters=filters, Limit=5)["TotalCount"] == 1
    assert code_of(cloud, "DescribeSandboxToolList", Limit=101) == "InvalidParameter.Limit"
    assert cloud("DescribeSandboxInstanceList", MaxResults=1, NeedTotalCount=True)["TotalCount"] == 0


@pytest.mark.parametrize("skew", [-400, 400])
def test_a_clock_that_is_wrong_by_more_than_five_minutes_is_refused(emulator, skew):
    headers = signed(emulator, "DescribeSandboxToolList", b"{}", skew=skew)
    answer = httpx.post(emulator.url, content=b"{}", headers=headers).json()["Response"]
    assert answer["Error"]["Code"] == "AuthFailure.SignatureExpire"


def test_a_request_that_was_changed_on_its_way_is_refused(emulator):
    body = b'{"Limit": 1}'
    headers = signed(emulator, "DescribeSandboxToolList", body)
    answer = httpx.post(emulator.url, content=b'{"Limit": 2}', headers=headers).json()["Response"]
    assert answer["Error"]["Code"] == "AuthFailure.SignatureFailure" and answer["RequestId"]
    assert "Error" not in httpx.post(emulator.url, content=body, headers=headers).json()["Response"]


def test_a_signature_of_the_sdk_for_node_is_accepted(emulator):
    """It signs the host without the port, and takes the service from the first label of the endpoint."""
    port = emulator.url.rpartition(":")[2]
    for endpoint, service in ((f"127.0.0.1:{port}", "127"), (f"ags.localhost:{port}", "ags")):
        headers = signed(
            emulator, "DescribeSandboxToolList", b"{}", host=endpoint.removesuffix(f":{port}"), service=service
        )
        answer = httpx.post(emulator.url, content=b"{}", headers={**headers, "Host": endpoint}).json()["Response"]
        assert "Error" not in answer
    headers = signed(emulator, "DescribeSandboxToolList", b"{}", service="cvm")
    answer = httpx.post(emulator.url, content=b"{}", headers=headers).json()["Response"]
    assert answer["Error"]["Code"] == "AuthFailure.SignatureFailure"


def signed(
    emulator,
    action,
    body,
    region="ap-guangzhou",
    version="2025-09-20",
    content_type="application/json",
    skew=0,
    host=None,
    service="ags",
):
    import hashlib
    from datetime import datetime, timezone

    stamp = int(time.time()) + skew
    date = datetime.fromtimestamp(stamp, timezone.utc).strftime("%Y-%m-%d")
    host = host or emulator.url.removeprefix("http://")
    canonical = (
        f"POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\ncontent-type;host\n{hashlib.sha256(body).hexdigest()}"
    )
    scope = f"{date}/{service}/tc3_request"
    text = f"TC3-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = sign.Sign.sign_tc3(emulator.secret_key, date, service, text)
    headers = {
        "Authorization": f"TC3-HMAC-SHA256 Credential={emulator.secret_id}/{scope}, "
        f"SignedHeaders=content-type;host, Signature={signature}",
        "Content-Type": content_type,
        "X-TC-Action": action,
        "X-TC-Timestamp": str(stamp),
        "X-TC-Version": version,
        "X-TC-Region": region,
    }
    return {name: value for name, value in headers.items() if value}


@pytest.mark.parametrize(
    ("action", "body", "more", "code"),
    [
        ("FlyToTheMoon", b"{}", {}, "InvalidAction"),
        ("CreateDeployment", b"{}", {}, "UnsupportedOperation"),
        ("DescribeSandboxToolList", b"{}", {"version": "2020-01-01"}, "NoSuchVersion"),
        ("DescribeSandboxToolList", b"{}", {"region": "moon"}, "UnsupportedRegion"),
        ("DescribeSandboxToolList", b"{}", {"region": ""}, "MissingParameter"),
        ("DescribeSandboxToolList", b"{", {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b"[]", {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b"\xff\xfe", {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"Limit": NaN}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b"[" * 100_000, {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"Limit": "20"}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"Limit": true}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"Limit": 1e400}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"ToolIds": "sdt-1"}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"ToolIds": [1]}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"ToolIds": ["\\ud800"]}', {}, "InvalidParameter"),
        ("DescribeSandboxToolList", b'{"Colour": "red"}', {}, "UnknownParameter"),
        ("CreateSandboxTool", b'{"CustomConfiguration": {"Colour": "red"}}', {}, "UnknownParameter"),
        ("CreateSandboxTool", b"{}", {}, "MissingParameter"),
        ("DescribeSandboxToolList", b"{}", {"content_type": "text/plain"}, "UnsupportedProtocol"),
        ("DescribeSandboxToolList", b" " * (10 * 1024 * 1024 + 1), {}, "RequestSizeLimitExceeded"),
    ],
)
def test_bad_requests_get_the_right_error_with_status_200(emulator, action, body, more, code):
    answer = httpx.post(emulator.url, content=body, headers=signed(emulator, action, body, **more), timeout=30)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json()["Response"]["Error"]["Code"] == code


def test_the_error_names_the_field(cloud):
    with pytest.raises(TencentCloudSDKException, match=r"Filters\.0\.Values"):
        cloud.raw("DescribeSandboxToolList", {"Filters": [{"Name": "ToolName", "Values": "base"}]})


def test_a_request_without_a_signature_reveals_nothing(emulator):
    answer = httpx.post(emulator.url, json={}, headers={"X-TC-Action": "DescribeSandboxToolList"})
    assert answer.json()["Response"]["Error"]["Code"] == "MissingParameter"
    assert httpx.post(emulator.url, json={}).json()["Response"]["Error"]["Code"] == "MissingParameter"


def test_null_is_the_same_as_absent(cloud):
    assert cloud.raw("DescribeSandboxToolList", {"Limit": None, "Filters": None})["TotalCount"] == 2


def test_a_request_whose_response_is_lost_was_carried_out(cloud, emulator):
    emulator.fault("lost", "CreateSandboxTool")
    fields = {
        "ToolName": "lost",
        "ToolType": "custom",
        "NetworkConfiguration": {"NetworkMode": "PUBLIC"},
        "CustomConfiguration": {"Image": "a:1"},
        "ClientToken": "t1",
    }
    assert code_of(cloud, "CreateSandboxTool", **fields) == "ClientNetworkError"
    assert cloud("DescribeSandboxToolList")["TotalCount"] == 3
    assert cloud("CreateSandboxTool", **fields)["ToolId"]
    assert cloud("DescribeSandboxToolList")["TotalCount"] == 3


def test_errors_statuses_and_cuts_come_as_often_as_they_were_asked_for(cloud, emulator):
    emulator.fault("error", "DescribeSandboxToolList", times=2)
    emulator.fault("error", "DescribeAPIKeyList", code="InternalError", message="Internal server error")
    emulator.fault("status", "DescribeQuotaOverview", status=502)
    emulator.fault("cut", "DescribeSandboxInstances")
    for _ in range(2):
        assert code_of(cloud, "DescribeSandboxToolList") == "RequestLimitExceeded"
    assert cloud("DescribeSandboxToolList")["TotalCount"] == 2
    assert code_of(cloud, "DescribeAPIKeyList") == "InternalError"
    assert code_of(cloud, "DescribeQuotaOverview") == "ServerNetworkError"
    assert code_of(cloud, "DescribeSandboxInstances") == "ClientNetworkError"
    assert cloud("DescribeQuotaOverview")["AccountQuotaOverview"]["Usage"]["SandboxTools"] == 2


def test_a_fault_of_an_operation_that_does_not_exist_is_refused(emulator):
    for operation in ("StratSandboxInstance", "GET /sandbox", 5):
        answer = httpx.post(f"{emulator.url}/_emulator/faults", json={"kind": "cut", "operation": operation})
        assert answer.status_code == 400 and repr(operation) in answer.json()["error"]
    assert emulator.overview()["faults"] == []


def test_slow_late_and_hanging_responses(cloud, emulator):
    emulator.fault("slow", "DescribeSandboxToolList", seconds=0.2)
    emulator.fault("late", "DescribeSandboxToolList", seconds=0.2)
    began = time.monotonic()
    cloud("DescribeSandboxToolList")
    assert 0.39 < time.monotonic() - began < 3
    emulator.fault("hang", "DescribeSandboxToolList")
    cloud.client.request.conn.timeout = 0.3
    assert code_of(cloud, "DescribeSandboxToolList") == "ClientNetworkError"


def test_rates_are_limited_when_that_is_switched_on(cloud, emulator):
    emulator.limits(rates=True, rate=3)
    codes = []
    for _ in range(10):
        try:
            cloud("DescribeAPIKeyList")
        except TencentCloudSDKException as error:
            codes.append(error.code)
    assert codes and set(codes) == {"RequestLimitExceeded"}


def test_api_keys_are_shown_once_and_open_e2bs_api(cloud, emulator):
    made = cloud("CreateAPIKey", Name="ci")
    assert made["APIKey"].startswith("ark_")
    listed = cloud("DescribeAPIKeyList")["APIKeySet"]
    assert [(key["KeyId"], key["Status"]) for key in listed] == [(made["KeyId"], "API_KEY_STATUS_ACTIVE")]
    assert made["APIKey"] not in json.dumps(listed)

    def status(key):
        return httpx.get(f"{emulator.url}/v2/sandboxes", headers={"X-API-KEY": key}).status_code

    assert status(made["APIKey"]) == status("e2b_" + made["APIKey"][4:]) == 200
    cloud("DeleteAPIKey", KeyId=made["KeyId"])
    assert status(made["APIKey"]) == 401
    assert code_of(cloud, "DeleteAPIKey", KeyId=made["KeyId"]) == "ResourceNotFound"


def test_images_are_cached_ahead(cloud):
    made = cloud("CreatePreCacheImageTask", Image="app:1", ImageRegistryType="personal")
    again = cloud("CreatePreCacheImageTask", Image="app:1", ImageRegistryType="personal")
    assert again["PreCacheImageId"] == made["PreCacheImageId"]
    deadline = time.monotonic() + 5
    while cloud("DescribePreCacheImageTask", PreCacheImageId=made["PreCacheImageId"])["Status"] != "SUCCESS":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    bad = cloud("CreatePreCacheImageTask", Image="registry.invalid/app:1", ImageRegistryType="personal")
    time.sleep(0.3)
    filters = [{"Name": "Status", "Values": ["FAILED"]}]
    found = cloud("DescribePreCacheImageList", Filters=filters, NeedTotalCount=True)
    assert [each["PreCacheImageId"] for each in found["PreCacheImageList"]] == [bad["PreCacheImageId"]]
    assert found["TotalCount"] == 1
    cloud("DeletePreCacheImage", PreCacheImageId=made["PreCacheImageId"])
    code = code_of(cloud, "DescribePreCacheImageTask", Image="app:1", ImageRegistryType="personal")
    assert code == "ResourceNotFound.Image"
    assert code_of(cloud, "CreatePreCacheImageTask", Image="app", ImageRegistryType="personal") == (
        "InvalidParameterValue.Image"
    )
