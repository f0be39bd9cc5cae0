"""Code in one sandbox, over the e2b code interpreter SDK on an attached data plane."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, TypeVar

from ags_flows.cloud.cell_response import Cell, Received, send_cell
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.cloud.responses import INVALID
from ags_flows.errors import (
    AGSFlowsError,
    CodeTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    ServiceError,
    UnreachableError,
    UnsupportedError,
)
from ags_flows.models import Chart, CodeContext, CodeError, CodeResult, RichResult
from ags_flows.models.checks import choice

R = TypeVar("R")
S = TypeVar("S")

LANGUAGES = ("bash", "java", "javascript", "python", "r", "typescript")
check_language = choice(*LANGUAGES)
DEFAULT_LIMIT = 1 << 20
LONGEST_NAME = 1000
"""Bytes of the name of an error, which is kept whatever the limit."""

RUN = "run code"

_NO_KERNEL = re.compile(r"no (such )?kernel|kernel could not be started", re.IGNORECASE)
"""What the interpreter responds to code that it has no kernel for, and did not execute."""

_CHART_PARTS = ("type", "title", "elements")


class CodeInterpreter:
    """The code interpreter of one sandbox. Only tools of type `code-interpreter` have one.

    Args:
        plane: The sandbox.
    """

    def __init__(self, plane: DataPlane) -> None:
        """Open nothing yet."""
        self.plane = plane

    def run(
        self,
        code: str,
        *,
        language: str = "python",
        context: str | None = None,
        timeout: float = 300.0,
        env: Mapping[str, str] | None = None,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        limit: int = DEFAULT_LIMIT,
        cancelled: Event | None = None,
    ) -> CodeResult:
        """Run code once, and wait for it.

        Args:
            code: The code.
            language: One of `LANGUAGES`.
            context: The id of a context, instead of the language's default one.
            timeout: Seconds; then the interpreter interrupts the code.
            env: Environment of this execution.
            on_stdout: Called with each piece of text as it arrives.
            on_stderr: The same for stderr.
            limit: How many bytes of each stream, and of message and traceback of an error, are kept: head and tail.
            cancelled: Ends the wait within five seconds when set.

        Returns:
            The outcome; an exception of the code is a value.

        Raises:
            ConfigurationError: There is no such language.
            CodeTimeoutError: The time limit was reached.
            OutcomeUnknownError: The code was sent, and no response shows whether it ran.
            UnsupportedError: The tool has no code interpreter, or not this language.
        """
        out, err = HeadAndTail(limit), HeadAndTail(limit)
        received = self._execute(
            Cell(code, timeout, None if context else language, context, dict(env or {}), cancelled or Event()),
            language,
            lambda: Received(_reader(out, on_stdout), _reader(err, on_stderr), keep_logs=False),
        )
        execution = received.execution
        failure = execution.error
        parts = [(failure.name, LONGEST_NAME), (failure.value, limit), (failure.traceback, limit)] if failure else []
        kept = [_kept(part, size) for part, size in parts]
        try:
            return CodeResult(
                code=code,
                language=language,
                text=execution.text,
                stdout=out.text(),
                stderr=err.text(),
                truncated=not received.complete or any(one.truncated for one in (out, err, *kept)),
                results=tuple(_rich(one) for one in execution.results),
                error=CodeError(name=kept[0].text(), value=kept[1].text(), traceback=kept[2].text()) if kept else None,
                execution_count=execution.execution_count,
                instance_id=self.plane.instance_id,
            )
        except (AGSFlowsError, *INVALID) as error:
            raise OutcomeUnknownError(
                f"The code ran in {self.plane.instance_id}, but a result cannot be read: {error}",
                hint="Look into the sandbox, or display something else.",
            ) from error

    def execute(
        self,
        code: str,
        *,
        language: str = "python",
        context: str | None = None,
        timeout: float = 300.0,
        env: Mapping[str, str] | None = None,
        on_stdout: Callable[[Any], object] | None = None,
        on_stderr: Callable[[Any], object] | None = None,
    ) -> Any:
        """Run code once, and return the SDK's own `Execution`, which holds all output.

        The arguments and errors are those of `run`, except that `on_stdout` and `on_stderr` get the SDK's own messages.
        Of more than 64 million characters of a stream, head and tail are kept.
        """
        return self._execute(
            Cell(code, timeout, None if context else language, context, dict(env or {})),
            language,
            lambda: Received(on_stdout, on_stderr, keep_logs=True),
        ).execution

    def _execute(self, cell: Cell, language: str, receive: Callable[[], Received]) -> Received:
        """Send a cell. Only an error that proves that it was not executed is one that may be retried."""
        check_language(language, "language")
        try:
            return self._call(RUN, lambda sandbox: send_cell(sandbox, cell, receive()))
        except (UnreachableError, ServiceError) as error:
            from ags_flows.cloud.sandbox_errors import was_never_sent

            if was_never_sent(error) or _was_not_found(error):
                raise
            if "Execution timed out" in str(error):
                raise CodeTimeoutError(
                    f"The code ran into its limit of {cell.timeout:g} s.",
                    hint="Give it more time with timeout=...",
                ) from error
            raise OutcomeUnknownError(
                f"There is no response to code that was sent to {self.plane.instance_id}: {error.message}",
                hint="It may have run, in part or whole. Look into the sandbox, or run it again in a new one.",
            ) from error

    def create_context(self, language: str = "python", cwd: str | None = None) -> CodeContext:
        """Create a context: its variables are not visible in other contexts.

        Args:
            language: One of `LANGUAGES`.
            cwd: Working directory, by default the user's home.
        """
        check_language(language, "language")
        return self._read("create a context", lambda one: one.create_code_context(language=language, cwd=cwd), _context)

    def list_contexts(self) -> list[CodeContext]:
        """Return all contexts, the default ones of languages too."""
        return self._read("list contexts", lambda one: one.list_code_contexts(), lambda found: [*map(_context, found)])

    def restart_context(self, context: str) -> None:
        """Forget all variables of a context."""
        self._call("restart a context", lambda one: one.restart_code_context(context))

    def remove_context(self, context: str) -> None:
        """End a context."""
        self._call("remove a context", lambda one: one.remove_code_context(context))

    def _read(self, what: str, action: Callable[[Any], S], convert: Callable[[S], R]) -> R:
        """Call something whose response is JSON.

        Raises:
            ServiceError: It is not JSON of the code interpreter.
        """
        invalid = ServiceError(
            f"{what} in {self.plane.instance_id}: the response is not JSON of the code interpreter.",
            hint="It is retried. Check which program listens on port 49999.",
        )
        try:
            answer = self._call(what, action)
        except AGSFlowsError:
            raise
        except INVALID as error:
            raise invalid from error
        try:
            return convert(answer)
        except (AGSFlowsError, *INVALID) as error:
            raise invalid from error

    def _call(self, what: str, action: Callable[[Any], R]) -> R:
        from ags_flows.cloud.e2b_internals import interpreter_class

        # Of an instance that does not exist, this raises another error than of one without a code interpreter.
        self.plane.refresh_in_time()
        try:
            return self.plane.call(what, lambda _: action(self.plane.attached(interpreter_class())))
        except ServiceError as error:
            if not _NO_KERNEL.search(str(error)):
                raise
            # A language that this sandbox has nothing for will not come with another attempt.
            raise UnsupportedError(error.message, hint="Use a tool whose image has a kernel for it.") from error
        except (UnreachableError, NotFoundError) as error:
            if isinstance(error, NotFoundError) and "ontext" not in str(error) and self._responds():
                raise UnreachableError(error.message, hint="A gateway did not find the code interpreter.") from error
            if not self._is_missing(error, certainly=what == RUN):
                raise
            raise UnsupportedError(
                f"The sandbox {self.plane.instance_id} has no code interpreter (nothing listens on its port).",
                hint="Use a tool of type code-interpreter, or upload the code and execute it as a command.",
            ) from error

    def _is_missing(self, error: UnreachableError | NotFoundError, *, certainly: bool) -> bool:
        """Return True if nothing listens on the port, or another program does.

        Args:
            error: The error.
            certainly: Whether a 502 without a reason is not enough: it may come after the request was executed.
        """
        text = str(error)
        if isinstance(error, NotFoundError):
            return "ontext" not in text
        if "not open" in text:
            return True
        # The SDK reports every 502 as the sandbox's end. One of a gateway may be over with the next request.
        is_502 = not certainly and "likely due to sandbox timeout" in text
        return is_502 and self.plane.is_alive() and not self._responds()

    def _responds(self) -> bool:
        from ags_flows.cloud.e2b_internals import interpreter_class

        try:
            self.plane.call("look", lambda _: self.plane.attached(interpreter_class()).list_code_contexts())
        except (AGSFlowsError, *INVALID):
            return False
        return True


def _was_not_found(error: BaseException) -> bool:
    """Return True if the code interpreter, or a gateway before it, responded 404: nothing was executed."""
    from e2b import NotFoundException

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NotFoundException):
        cause = cause.__cause__
    return cause is not None


def _reader(where: HeadAndTail, tell: Callable[[str], object] | None) -> Callable[[Any], None]:
    def take(message: Any) -> None:
        where.add(message.line.encode("utf-8", "replace"))
        if tell is not None:
            tell(message.line)

    return take


def _kept(text: str, limit: int) -> HeadAndTail:
    """Return head and tail of a text."""
    kept = HeadAndTail(limit)
    kept.add(text.encode("utf-8", "replace"))
    return kept


def _context(one: Any) -> CodeContext:
    return CodeContext(id=one.id, language=one.language, cwd=one.cwd or "")


def _rich(one: Any) -> RichResult:
    chart = one.chart.to_dict() if one.chart is not None else None
    names = ("text", "html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "javascript")
    return RichResult(
        **{name: getattr(one, name) for name in names},
        json_value=one.json,
        table=one.data,
        chart=chart and _chart(chart),
        extra=dict(one.extra or {}),
        is_main=bool(one.is_main_result),
    )


def _chart(raw: Mapping[str, Any]) -> Chart:
    return Chart(
        type=str(getattr(raw["type"], "value", raw["type"]) or "unknown"),
        title=raw.get("title"),
        elements=tuple(dict(element) for element in raw.get("elements") or ()),
        axes={name: value for name, value in raw.items() if name not in _CHART_PARTS and value is not None},
    )
