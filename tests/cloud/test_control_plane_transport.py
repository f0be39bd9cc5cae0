"""Connections are kept, few, and never waited for without end; errors of the network have hints."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ags_flows.cloud import transport
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import ConfigurationError, InvalidRequestError, ServiceError, ThrottledError, UnreachableError


def test_fifty_calls_in_a_row_take_one_connection(stub, stubbed):
    for _ in range(50):
        stubbed.quotas()
    assert (len(stub.requests), stub.connections) == (50, 1)


def test_refused_requests_keep_the_connection_too(stub, stubbed):
    stub.answer = lambda action, parameters: {"Error": {"Code": "InvalidParameterValue", "Message": "no"}}
    for _ in range(5):
        with pytest.raises(InvalidRequestError):
            stubbed.quotas()
    assert stub.connections == 1


def test_threads_that_come_and_go_share_a_bounded_number_of_connections(stub, stubbed):
    stub.answer = lambda action, parameters: time.sleep(0.01) or {}
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: stubbed.quotas(), range(40)))
    assert len(stub.requests) == 120
    assert stub.connections <= 8


def test_no_more_connections_are_kept_than_the_limit(stub, stubbed, monkeypatch):
    monkeypatch.setattr(transport, "MOST_KEPT", 2)
    everybody = threading.Barrier(5)
    stub.answer = lambda action, parameters: everybody.wait() and {} or {}
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: stubbed.quotas(), range(5)))
    assert len(stubbed._transport._idle) == 2


def test_a_connection_that_was_idle_for_long_is_not_trusted(stub, stubbed, monkeypatch):
    stubbed.quotas()
    monkeypatch.setattr(transport, "KEPT_FOR", 0.0)
    stubbed.quotas()
    assert stub.connections == 2


def test_a_server_that_closed_the_connection_is_called_again_without_an_error(stub, stubbed):
    stub.answer = lambda action, parameters: (200, {"Connection": "close", "Content-Type": "application/json"},
                                              b'{"Response": {"RequestId": "r"}}')  # fmt: skip
    for _ in range(3):
        stubbed.quotas()
    assert stub.connections == 3


def test_a_lost_response_is_unreachable_and_sent_once(stub, stubbed):
    stub.answer = lambda action, parameters: None
    with pytest.raises(UnreachableError, match="StartSandboxInstance: no response"):
        stubbed.start_instance(tool="base")
    assert len(stub.requests) == 1
    stub.answer = lambda action, parameters: {}
    stubbed.quotas()


def test_a_response_that_breaks_off_is_unreachable(stub, stubbed):
    stub.answer = lambda action, parameters: (200, {"Content-Length": "500", "Connection": "close"}, b'{"Resp')
    with pytest.raises(UnreachableError, match="no response"):
        stubbed.quotas()


def test_a_silent_server_is_given_up_after_the_time_limit(stub):
    over = threading.Event()
    stub.answer = lambda action, parameters: over.wait(10) and None
    control = stub.control(request_timeout=0.3)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="timed out"):
        control.quotas()
    assert time.monotonic() - began < 2
    over.set()
    control.close()


@pytest.mark.parametrize("kind", [ControlPlane, PacedControlPlane])
def test_a_view_with_a_time_limit_gives_up_earlier_and_shares_the_connections(stub, kind):
    over = threading.Event()
    control = kind(stub.control(request_timeout=20.0).connection)
    control.quotas()
    view = control.with_timeout(0.3)
    assert type(view) is kind
    view.quotas()
    control.quotas()
    assert stub.connections == 1
    stub.answer = lambda action, parameters: over.wait(10) and {}
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="timed out"):
        view.get_instance("i-1")
    assert time.monotonic() - began < 2
    stub.answer = lambda action, parameters: time.sleep(0.6) or {}
    control.quotas()
    over.set()
    control.close()


def test_an_emulator_that_does_not_run_is_named_in_the_hint(stub):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    control = stub.control(endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match=r"Connection refused.*`ags-flows emulator`"):
        control.list_tools()
    control.close()


def test_an_unknown_host_asks_for_the_endpoint(stub):
    control = stub.control(endpoint="https://ags.nowhere.invalid", request_timeout=5.0)
    with pytest.raises(UnreachableError, match="(?i)spelling|network") as caught:
        control.list_tools()
    assert caught.value.retryable and "the-secret-key" not in str(caught.value)
    control.close()


@pytest.mark.parametrize("endpoint", ["ftp://example.com", "http://", "http://host:port", "https://h:99999"])
def test_an_endpoint_that_is_not_a_url_is_refused_before_any_call(stub, endpoint):
    with pytest.raises(ConfigurationError, match="http_endpoint"):
        stub.control(endpoint=endpoint)


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        (503, {"Retry-After": "7"}, ServiceError, 7.0),
        (502, {}, ServiceError, None),
        (429, {"Retry-After": "1.5"}, ThrottledError, 1.5),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ThrottledError, None),
        (404, {}, InvalidRequestError, None),
    ],
)
def test_errors_of_other_statuses_have_the_number_and_the_retry_after(
    stub, stubbed, status, headers, error, retry_after
):
    stub.answer = lambda action, parameters: (status, headers, b"<html>Gateway</html>")
    with pytest.raises(error, match=f"HTTP status {status}.*Gateway") as caught:
        stubbed.quotas()
    assert caught.value.retry_after == retry_after and caught.value.code == f"HTTP.{status}"


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b"null", b"{}", b'{"Response": null}', b'{"Response": {"Error": {}}}', b"\xff\xfe"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html"])
def test_what_is_not_the_cloud_apis_json_is_an_error_of_ours(stub, stubbed, kind, body):
    stub.answer = lambda action, parameters: (200, {"Content-Type": kind}, body)
    with pytest.raises((ServiceError, InvalidRequestError)):
        stubbed.quotas()


def test_an_error_is_seen_whatever_its_content_type(stub, stubbed):
    body = b'{"Response": {"RequestId": "req-9", "Error": {"Code": "RequestLimitExceeded", "Message": "slow down"}}}'
    stub.answer = lambda action, parameters: (200, {"Content-Type": "application/json; charset=utf-8"}, body)
    with pytest.raises(ThrottledError, match=r"slow down\. \[RequestLimitExceeded, RequestId req-9\]"):
        stubbed.quotas()


def test_requests_are_signed_for_the_region_and_with_the_session_token(stub):
    from pydantic import SecretStr

    control = stub.control(region="ap-shanghai", session_token=SecretStr("sts-token"))
    control.quotas()
    headers = stub.headers[-1]
    assert headers["X-TC-Region"] == "ap-shanghai" and headers["X-TC-Token"] == "sts-token"
    assert headers["X-TC-Version"] == "2025-09-20" and "TC3-HMAC-SHA256" in headers["Authorization"]
    control.close()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(stub, stubbed, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    stubbed.quotas()
    assert stub.connections == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_opens_new_connections(stub, stubbed):
    stubbed.quotas()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            stubbed.quotas()
            os.write(writing, b"ok")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"ok"
    stubbed.quotas()
    assert stub.connections == 2


def test_the_sdk_is_not_imported_before_it_is_needed():
    code = "import sys, ags_flows, ags_flows.cloud.control_plane; print(any('tencentcloud' in m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
