"""Every exception of the e2b SDKs has a class of ours that was chosen for it."""

import inspect

import e2b
import e2b.exceptions
import e2b_code_interpreter
import e2b_code_interpreter.exceptions
import httpx
import pyqwest
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b import CommandExitException

from ags_flows.cloud.sandbox_errors import map_sandbox_error, was_never_sent
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
    TransferError,
    UnreachableError,
    UnsupportedError,
)

EXPECTED = {
    "AuthenticationException": TokenExpiredError,
    "BuildException": UnsupportedError,
    "FileNotFoundException": NotFoundError,
    "FileUploadException": UnsupportedError,
    "GitAuthException": TokenExpiredError,
    "GitUpstreamException": ServiceError,
    "GuestUnresponsiveException": ConflictError,
    "InvalidArgumentException": InvalidRequestError,
    "NotEnoughSpaceException": TransferError,
    "NotFoundException": NotFoundError,
    "RateLimitException": ThrottledError,
    "SandboxException": ServiceError,
    "SandboxNotFoundException": InstanceGoneError,
    "SandboxNotRunningException": InstanceGoneError,
    "SandboxUnreachableException": UnreachableError,
    "SecretException": UnsupportedError,
    "SecretNotFoundException": UnsupportedError,
    "ServiceBusyException": ServiceError,
    "TemplateException": UnsupportedError,
    "TimeoutException": UnreachableError,
    "VolumeException": UnsupportedError,
    "VolumeNotFoundException": NotFoundError,
    "VolumePathNotFoundException": NotFoundError,
}


def exceptions():
    """All that the SDKs define; the exit code of a command is a value here, not an error."""
    found = {}
    for module in (e2b, e2b.exceptions, e2b_code_interpreter, e2b_code_interpreter.exceptions):
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, Exception) and value.__module__.endswith(".exceptions"):
                found[name] = value
    return sorted(item for item in found.items() if item[1] is not CommandExitException)


@pytest.mark.parametrize(("name", "theirs"), exceptions())
def test_each_exception_of_the_sdk_is_mapped(name, theirs):
    mapped = map_sandbox_error(theirs("it broke"), "sbi-1", "read /x")
    assert type(mapped) is EXPECTED[name], f"decide what {name} means"
    assert str(mapped).startswith("read /x in sbi-1: it broke.")


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        (400, InvalidRequestError),
        (401, TokenExpiredError),
        (403, UnsupportedError),
        (500, ServiceError),
        (502, ServiceError),
        (503, ServiceError),
    ],
)
def test_what_has_only_a_status_is_mapped_by_it(status, ours):
    assert type(map_sandbox_error(e2b.SandboxException(f"{status}: oops"), "sbi-1", "x")) is ours


@pytest.mark.parametrize(
    "theirs",
    [value for value in vars(httpx).values() if inspect.isclass(value) and issubclass(value, httpx.TransportError)],
)
def test_each_failure_of_the_network_is_retried(theirs):
    mapped = map_sandbox_error(theirs("gone"), "sbi-1", "x")
    assert type(mapped) is UnreachableError and mapped.retryable


LOST = [value for value in vars(pyqwest).values() if inspect.isclass(value) and issubclass(value, Exception)]


@pytest.mark.parametrize("theirs", [*LOST, ConnectionError, ConnectionResetError])
def test_each_failure_of_the_transport_of_an_rpc_is_retried(theirs):
    lost = theirs("gone", pyqwest.StreamErrorCode.INTERNAL_ERROR) if theirs is pyqwest.StreamError else theirs("gone")
    rpc = ConnectError(Code.UNAVAILABLE, "gone")
    rpc.__cause__ = lost
    mapped = map_sandbox_error(rpc, "sbi-1", "x")
    assert type(mapped) is UnreachableError and mapped.retryable
    assert was_never_sent(rpc) == (theirs in (ConnectionError, pyqwest.ConnectTimeout))


@pytest.mark.parametrize("theirs", [pyqwest.ReadError, pyqwest.WriteError, pyqwest.RemoteProtocolError])
def test_what_the_transport_raises_itself_is_retried(theirs):
    assert type(map_sandbox_error(theirs("gone"), "sbi-1", "x")) is UnreachableError


@pytest.mark.parametrize("message", ["The sandbox was not found", "sandbox sbi-1 has stopped", "instance expired"])
def test_a_sandbox_that_is_not_found_is_gone_and_not_a_missing_file(message):
    assert type(map_sandbox_error(e2b.NotFoundException(message), "sbi-1", "x")) is InstanceGoneError


@pytest.mark.parametrize("foreign", [ValueError("x"), KeyError("x"), RuntimeError("x"), AGSFlowsError("x")])
def test_what_is_not_the_sdks_is_not_mapped(foreign):
    assert map_sandbox_error(foreign, "sbi-1", "x") is None


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("Code.PERMISSION_DENIED: path /proc/1: permission denied", UnsupportedError),
        ("Code.INTERNAL: error removing file or directory: unlinkat /proc/1/x: operation not permitted", None),
        ("Code.INTERNAL: error moving: rename /a /b: device or resource busy", None),
        ("Code.ALREADY_EXISTS: path already exists", None),
        ("500: error opening file: open /proc/x: read-only file system", None),
        ("Code.INTERNAL: resource temporarily unavailable", ServiceError),
        ("Code.UNKNOWN: bad gateway", ServiceError),
        ("500: oops", ServiceError),
    ],
)
def test_what_envd_refuses_is_not_transient(message, ours):
    assert type(map_sandbox_error(e2b.SandboxException(message), "sbi-1", "x")) is (ours or InvalidRequestError)


@pytest.mark.parametrize("user", [None, "root"])
def test_what_the_system_of_a_sandbox_refuses_is_not_transient(plane, user):
    for refused in (lambda: plane.remove("/proc/1", user=user), lambda: plane.make_dir("/proc/x", user=user)):
        with pytest.raises(AGSFlowsError) as caught:
            refused()
        assert not caught.value.retryable, caught.value
