"""Errors of the e2b SDK and of its HTTP clients as ours: one total map for the data plane."""

from __future__ import annotations

import re
from types import ModuleType

import e2b.exceptions as e2b
import httpx
import pyqwest
from connectrpc.errors import ConnectError

from ags_flows.cloud.responses import TooLarge
from ags_flows.cloud.statuses import THROTTLED, is_inconclusive
from ags_flows.errors import (
    AGSFlowsError,
    ConflictError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    OutputTooLargeError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
    TransferError,
    UnreachableError,
    UnsupportedError,
)

_STATUS = re.compile(r"^\s*(\d{3})\b")
_CODE = re.compile(r"^\s*(?:Code\.)?([A-Za-z_]+):")
_BY_SYSTEM = re.compile(
    r"operation not permitted|permission denied|read-only file system|not a directory|is a directory|file exists|"
    r"file name too long|too many (levels of symbolic )?links|invalid argument|not supported|directory not empty|"
    r"invalid cross-device link|device or resource busy|no such (file|device)",
    re.IGNORECASE,
)
"""Errors of the system that another attempt gets too; envd reports them as internal errors."""

_NO_USER = re.compile(r"(invalid|unknown|no such) (default )?user(name)?\b|looking up user", re.IGNORECASE)
_GONE = re.compile(r"(sandbox|instance)\b.*\b(not found|stopped|expired)", re.IGNORECASE | re.DOTALL)


def _theirs(name: str, module: ModuleType = e2b) -> type[BaseException]:
    """Return an exception of e2b or its transport, or one that is never raised if this version does not have it."""
    return getattr(module, name, _NeverRaised)


class _NeverRaised(Exception):
    """Stands for exceptions that older versions do not have."""


MEANINGS: tuple[tuple[type[BaseException], type[AGSFlowsError], str | None], ...] = (
    (
        e2b.AuthenticationException,
        TokenExpiredError,
        "A new token was acquired and refused again: check the region.",
    ),
    (_theirs("SandboxNotRunningException"), InstanceGoneError, "It was stopped, or ran into its timeout."),
    (e2b.SandboxNotFoundException, InstanceGoneError, "It was stopped, or ran into its timeout."),
    (_theirs("SandboxUnreachableException"), UnreachableError, "It is retried."),
    (e2b.TimeoutException, UnreachableError, "It is retried; runtime_timeout gives one request more time."),
    (e2b.FileNotFoundException, NotFoundError, None),
    (e2b.NotFoundException, NotFoundError, None),
    (
        e2b.NotEnoughSpaceException,
        TransferError,
        "The sandbox's disk is full: free some, or give the tool more storage.",
    ),
    (e2b.InvalidArgumentException, InvalidRequestError, None),
    (e2b.RateLimitException, ThrottledError, "It is retried; fewer concurrent calls avoid it."),
    (_theirs("ServiceBusyException"), ServiceError, "It is retried."),
    (
        _theirs("GuestUnresponsiveException"),
        ConflictError,
        "Resume the instance without its memory, or start a new one.",
    ),
    (e2b.TemplateException, UnsupportedError, "The envd in this image is too old for the SDK."),
    (e2b.BuildException, UnsupportedError, None),
    (e2b.VolumeException, UnsupportedError, None),
    (_theirs("SecretException"), UnsupportedError, None),
    (TooLarge, OutputTooLargeError, "Use a command that lists less."),
    (httpx.TimeoutException, UnreachableError, "It is retried; runtime_timeout gives one request more time."),
    (httpx.TransportError, UnreachableError, "It is retried."),
    # Of an RPC whose connection was lost while the sandbox runs: the SDK converts all others.
    (ConnectError, UnreachableError, "It is retried."),
    (pyqwest.ReadError, UnreachableError, "It is retried."),
    (pyqwest.WriteError, UnreachableError, "It is retried."),
    (_theirs("RemoteProtocolError", pyqwest), UnreachableError, "It is retried."),
)
"""In this order: the SDK derives 'not running' and 'unreachable' from 'timeout'."""

_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, _theirs("ConnectTimeout", pyqwest))


def is_lost(error: BaseException) -> bool:
    """Return True if a timeout error of the SDK means something else: the sandbox is gone or unreachable."""
    return isinstance(error, (_theirs("SandboxNotRunningException"), _theirs("SandboxUnreachableException")))


def was_never_sent(error: BaseException) -> bool:
    """Return True if the connection for a request was never made, so that the sandbox did nothing."""
    cause: BaseException | None = error
    while cause is not None:
        # Of an RPC, a plain ConnectionError; its subclasses, such as a reset, are of connections that were made.
        if isinstance(cause, _NOT_CONNECTED) or type(cause) is ConnectionError:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def exit_code_of(code: int, error: str | None) -> int:
    """Return a shell's exit code for the status of envd: 128 plus the signal's number for a killed command."""
    if code >= 0:
        return code
    names = {"killed": 9, "terminated": 15, "interrupt": 2, "segmentation fault": 11, "aborted": 6, "hangup": 1}
    told = (error or "").lower()
    return 128 + next((number for name, number in names.items() if name in told), 9)


def map_sandbox_error(error: BaseException, instance_id: str, what: str) -> AGSFlowsError | None:
    """Return our error for one of the data plane, or None when it is not the SDK's.

    Args:
        error: What was raised.
        instance_id: The instance.
        what: What was being done, such as `read /tmp/x`.
    """
    told = " ".join(str(error).split())[:500] or type(error).__name__
    text = f"{what} in {instance_id}: {told.rstrip('.')}."
    if isinstance(error, e2b.AuthenticationException) and _NO_USER.search(told):
        # envd refuses a user that does not exist in the same way as a token.
        return InvalidRequestError(text, hint="Give user= the name of a user that exists in the sandbox.")
    if isinstance(error, e2b.NotFoundException) and _GONE.search(told):
        return InstanceGoneError(text, hint="It was stopped, or ran into its timeout.")
    for theirs, ours, hint in MEANINGS:
        if isinstance(error, theirs):
            return ours(text, hint=hint)
    if isinstance(error, e2b.SandboxException):
        return _by_status(told, text)
    return None


def _by_status(told: str, text: str) -> AGSFlowsError:
    """Return the error for an HTTP status, or a code of an RPC, which the SDK puts in front of the message."""
    status, code = _STATUS.match(told), _CODE.match(told)
    reason = status[1] if status else code[1].lower() if code else ""
    if reason == "401":
        return TokenExpiredError(text)
    if reason in ("403", "permission_denied"):
        return UnsupportedError(text, hint='The sandbox does not allow it to this user: try user="root".')
    if reason == str(THROTTLED):
        return ThrottledError(text, hint="It is retried; fewer concurrent calls avoid it.")
    if reason == "unimplemented":
        return UnsupportedError(text, hint="The envd in this image does not have it.")
    if reason == "out_of_range":
        return OutputTooLargeError(text.replace("Code.OUT_OF_RANGE: ", ""), hint="Use a command, such as find.")
    refused = reason.startswith("4") and not is_inconclusive(int(reason))
    if refused or reason in ("already_exists", "failed_precondition"):
        return InvalidRequestError(text)
    if reason in ("500", "internal") and _BY_SYSTEM.search(told):
        return InvalidRequestError(text, hint="The system of the sandbox does not allow it.")
    return ServiceError(text, hint="It is retried.")
