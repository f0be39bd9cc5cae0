"""All errors that this package raises.

```text
AGSFlowsError
├── ConfigurationError          a setting or an argument is missing or wrong; nothing was sent
├── BlockError                  a saved Prefect block has a field that breaks its rule
├── CredentialsError            the keys are missing, unknown, or lack a permission
├── InvalidRequestError         AGS rejected a parameter
├── UnsupportedError            this tool, instance or machine does not support the operation
├── QuotaExceededError    (r)   too many instances, tools or keys exist
├── ThrottledError        (r)   too many requests per second
├── ServiceError          (r)   AGS had an internal failure, or is not ready yet
├── UnreachableError      (r)   no response: network, proxy, gateway
├── NotFoundError               no such tool, instance, snapshot, or file
├── ConflictError               the resource exists already, is in use, or in another state
│   ├── DuplicateRequestError   the ClientToken was used before: look up the resource that it created
│   └── RequestInProgressError (r)  the first request with this ClientToken is still being executed
├── ToolFailedError             the tool became FAILED; the message has the StatusReason
├── InstanceFailedError         the instance failed to start
├── InstanceGoneError           the instance ended while it was needed
├── SupersededError             a later attempt of the same run has taken over
├── WaitTimeoutError            a tool or an instance did not become ready in time
├── WaitCancelledError          the run or the process ends: a wait was cancelled, or a step was not begun
├── TokenExpiredError     (r)   the access token was rejected, also after a refresh
├── CommandFailedError          exit code other than 0, when `check=True`
│   └── CommandTimeoutError     the command reached its time limit and was killed
├── CodeFailedError             code raised an exception, when `check=True`
│   └── CodeTimeoutError        the code ran into its time limit and was interrupted
├── FunctionError               a function in a sandbox raised an exception
├── BatchFailedError            more items of a batch failed than it may have
├── SyncFailedError             some tools could not be brought in step with a list
├── OutcomeUnknownError         it may have run, and this cannot be determined
├── TransferError               a file or directory could not be moved whole
│   └── TransferIncompleteError (r)  not all of it arrived, or it was changed on the way
└── OutputTooLargeError         more output than may be held in memory
```

(r) marks `retryable = True`: the same call is safe to repeat and may succeed later. `retryable` is an attribute of
the class, and `ags_flows.run.task_options.is_retryable` reads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ags_flows.models import BatchReport, CodeResult, ExecResult, RunReport, SyncReport


class AGSFlowsError(Exception):
    """Base of all errors of this package.

    Args:
        message: What happened.
        hint: What to do about it, one sentence.
        code: The error code of AGS, such as `ResourceNotFound.SandboxTool`.
        request_id: The RequestId of AGS, which its support needs.
        retry_after: Seconds to wait before another attempt, if the response named them.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return message, code, RequestId and hint in one line of text."""
        origin = ", ".join(part for part in (self.code, self.request_id and f"RequestId {self.request_id}") if part)
        text = f"{self.message} [{origin}]" if origin else self.message
        return f"{text.rstrip()} {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state, since the constructor takes keywords."""
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(cls: type[AGSFlowsError], state: dict[str, Any]) -> AGSFlowsError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class ConfigurationError(AGSFlowsError, ValueError):
    """A setting or an argument is missing or wrong. Nothing was sent to AGS."""


class BlockError(AGSFlowsError):
    """A saved Prefect block has a field that breaks its rule. The message names block, field, value and rule.

    It is not a ValueError: Prefect replaces a ValueError of a parameter by a message without the cause.
    """


class CredentialsError(AGSFlowsError):
    """The keys are missing, unknown, expired, or lack a permission."""


class InvalidRequestError(AGSFlowsError):
    """AGS rejected a parameter of the request."""


class UnsupportedError(AGSFlowsError):
    """This tool, instance or machine does not support the operation."""


class QuotaExceededError(AGSFlowsError):
    """The account has reached its quota of instances, tools or keys. A retry succeeds after one of them has ended."""

    retryable = True


class ThrottledError(AGSFlowsError):
    """The account sent more requests per second than AGS allows."""

    retryable = True


class ServiceError(AGSFlowsError):
    """AGS had an internal failure, or a resource that it needs is not ready yet."""

    retryable = True


class UnreachableError(AGSFlowsError):
    """AGS or the sandbox did not respond: network, proxy, gateway or timeout."""

    retryable = True


class NotFoundError(AGSFlowsError):
    """There is no such tool, instance, snapshot, process or file."""


class ConflictError(AGSFlowsError):
    """The resource exists already, is in use, or is in a state that does not allow the operation."""


class DuplicateRequestError(ConflictError):
    """The ClientToken of a creation was used before. Look up the resource that the first request created."""


class RequestInProgressError(ConflictError):
    """The first request with the same ClientToken is still being executed. Repeat the request with the same token."""

    retryable = True


class ToolFailedError(AGSFlowsError):
    """The tool became FAILED. The message has AGS's StatusReason."""


class InstanceFailedError(AGSFlowsError):
    """The instance did not reach RUNNING and never will."""


class InstanceGoneError(AGSFlowsError):
    """The instance has ended (it was stopped or timed out), or it never existed."""


class SupersededError(AGSFlowsError):
    """A later attempt of the same run has taken over the sandbox or the command. This attempt must not continue.

    Attributes:
        instance_id: The sandbox; empty for anything else that was taken over.
    """

    instance_id = ""


class WaitTimeoutError(AGSFlowsError, TimeoutError):
    """A tool or an instance did not become ready within the given time."""


class WaitCancelledError(AGSFlowsError):
    """The run or the process ends: a wait was cancelled, or a step was not begun."""


class TokenExpiredError(AGSFlowsError):
    """The sandbox rejected the access token, also after a refresh."""

    retryable = True


class SyncFailedError(AGSFlowsError):
    """Some tools could not be synchronized with their list. The others were synchronized.

    Attributes:
        report: The result for each tool, a `SyncReport`.
    """

    def __init__(self, message: str, *, report: SyncReport | None = None, **parts: Any) -> None:
        super().__init__(message, **parts)
        self.report = report


class BatchFailedError(AGSFlowsError):
    """More batch items failed than `fail_above` allows. Results are kept; a retry continues with the other items.

    Attributes:
        report: The results of the items, a `BatchReport`.
    """

    def __init__(self, message: str, *, report: BatchReport | None = None, **parts: Any) -> None:
        super().__init__(message, **parts)
        self.report = report


class OutcomeUnknownError(AGSFlowsError):
    """A step may have run completely, partly or not at all, and this cannot be determined.

    The step is never repeated automatically. Inspect the sandbox, or run the step again in a new sandbox.
    """


class TransferError(AGSFlowsError):
    """A file or a directory could not be transferred completely. The destination has no incomplete file."""


class TransferIncompleteError(TransferError):
    """Bytes were lost or changed during the transfer. Another attempt transfers everything again."""

    retryable = True


class OutputTooLargeError(AGSFlowsError):
    """The output is larger than its limit. Redirect it to a file and download that file."""


class CommandFailedError(AGSFlowsError):
    """A command ended with an exit code other than 0 and `check=True` was given.

    Attributes:
        result: The outcome, an `ExecResult`.
        report: Of a job: all that was done, a `RunReport`.
    """

    def __init__(self, message: str, *, result: ExecResult | None = None, **parts: Any) -> None:
        super().__init__(message, **parts)
        self.result = result
        self.report: RunReport | None = None


class CommandTimeoutError(CommandFailedError):
    """A command reached its time limit. Its whole process group was killed."""


class FunctionError(AGSFlowsError):
    """A function in a sandbox raised an exception, or its process ended before it returned.

    Attributes:
        function: The function's name.
        error_type: Name of the exception's class, with its module unless it is built in. `ProcessEnded` where the
            process ended without an exception.
        error_message: The exception's text.
        traceback: The traceback in the sandbox, as Python prints it; its lines are those of the function's file. Of a
            process that ended, the end of its error output.
    """

    def __init__(
        self,
        message: str,
        *,
        function: str = "",
        error_type: str = "",
        error_message: str = "",
        traceback: str = "",
        **parts: Any,
    ) -> None:
        super().__init__(message, **parts)
        self.function = function
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class CodeFailedError(AGSFlowsError):
    """Code raised an exception in the code interpreter and `check=True` was given.

    Attributes:
        result: The outcome, a `CodeResult`.
    """

    def __init__(self, message: str, *, result: CodeResult | None = None, **parts: Any) -> None:
        super().__init__(message, **parts)
        self.result = result


class CodeTimeoutError(CodeFailedError):
    """Code reached its time limit. The interpreter interrupted it."""
