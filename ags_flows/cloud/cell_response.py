"""One code cell as a request of the code interpreter, its response read in bounded memory.

The SDK's own `run_code` splits a response at every line separator of Unicode, which text may contain, and keeps all
output. So the request is made here, over the SDK's client, and its lines are split on line feeds alone.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from ags_flows.cloud.responses import INVALID, beginning, parsed
from ags_flows.errors import OutcomeUnknownError

KEPT_LOGS = 64 << 20
"""Characters of each stream that an SDK `Execution` may hold: head and tail of longer output."""

KEPT_RESULTS = 256 << 20
"""Bytes of all results of one cell; further results are left out, except the value of the last line."""

LONGEST_LINE = KEPT_RESULTS
"""Bytes of one line of the response; a longer one is left out."""

_MAY_HAVE_RUN = "The code was sent and may have run. Check which program listens on port 49999."

Handler = Callable[[Any], object]


@dataclass(frozen=True)
class Cell:
    """A cell to send.

    Attributes:
        code: The code.
        timeout: Seconds; then the interpreter interrupts the code.
        language: Its language, if it does not run in a context.
        context: The id of a context.
        env: Environment of this execution.
        cancelled: Ends the wait when set; the response is looked at with each of its pieces, at least every five
            seconds.
    """

    code: str
    timeout: float
    language: str | None
    context: str | None
    env: dict[str, str]
    cancelled: Event = field(default_factory=Event)


class Received:
    """What has come of a cell.

    Args:
        on_stdout: Called with each `OutputMessage` of stdout.
        on_stderr: The same for stderr.
        on_result: Called with each `Result`.
        on_error: Called with the `ExecutionError`.
        keep_logs: Whether the execution keeps its output, up to `KEPT_LOGS`.

    Attributes:
        execution: The SDK's `Execution`.
        complete: False if results were left out.
    """

    def __init__(
        self,
        on_stdout: Handler | None = None,
        on_stderr: Handler | None = None,
        on_result: Handler | None = None,
        on_error: Handler | None = None,
        *,
        keep_logs: bool,
    ) -> None:
        from e2b_code_interpreter.models import Execution

        self.execution = Execution()
        self.complete = True
        self._handlers = {"stdout": on_stdout, "stderr": on_stderr}
        self._on_result, self._on_error = on_result, on_error
        limit = KEPT_LOGS if keep_logs else 0
        self._logs = {"stdout": Pieces(limit), "stderr": Pieces(limit)}
        self._kept = 0

    def take(self, line: bytes) -> None:
        """Take one line of the response.

        Raises:
            ValueError: The line is not a JSON object of the code interpreter.
        """
        from e2b_code_interpreter.models import ExecutionError, OutputMessage, Result

        if not line.strip():
            return
        data = _parsed(line)
        kind = data.pop("type", None)
        if kind in self._handlers:
            text = str(data["text"])
            self._logs[kind].add(text)
            if (handler := self._handlers[kind]) is not None:
                handler(OutputMessage(text, data.get("timestamp", 0), kind == "stderr"))
        elif kind == "result":
            self._kept += len(line)
            if self._kept <= KEPT_RESULTS or data.get("is_main_result"):
                self.execution.results.append(Result(**data))
                if self._on_result is not None:
                    self._on_result(self.execution.results[-1])
            else:
                self.complete = False
        elif kind == "error":
            self.execution.error = ExecutionError(
                str(data["name"]), str(data["value"]), str(data.get("traceback") or "")
            )
            if self._on_error is not None:
                self._on_error(self.execution.error)
        elif kind == "number_of_executions":
            self.execution.execution_count = data["execution_count"]

    def finish(self) -> Received:
        """Put the output that is kept into the execution."""
        self.execution.logs.stdout = self._logs["stdout"].pieces()
        self.execution.logs.stderr = self._logs["stderr"].pieces()
        return self


class Pieces:
    """Pieces of text in bounded memory: the first and the last ones.

    Args:
        limit: How many characters are kept; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._head_room, self._tail_room = limit // 2, limit - limit // 2
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._tail_size = self._left_out = 0

    def add(self, piece: str) -> None:
        """Take a piece."""
        if not self._tail_room:
            return
        if not self._tail and len(piece) <= self._head_room:
            self._head_room -= len(piece)
            self._head.append(piece)
            return
        self._tail.append(piece)
        self._tail_size += len(piece)
        while self._tail_size > self._tail_room and len(self._tail) > 1:
            dropped = len(self._tail.popleft())
            self._tail_size -= dropped
            self._left_out += dropped

    def pieces(self) -> list[str]:
        """Return the pieces, with a line in place of those that were left out."""
        note = [f"\n... {self._left_out:,} characters left out ...\n"] if self._left_out else []
        return [*self._head, *note, *self._tail]


def send_cell(sandbox: Any, cell: Cell, received: Received, request_timeout: float | None = None) -> Received:
    """Send a cell once, and read its response to the end.

    Args:
        sandbox: An attached `e2b_code_interpreter.Sandbox`.
        cell: What to run.
        received: Takes the lines.
        request_timeout: Seconds until there is a connection, by default those of the sandbox object.

    Raises:
        OutcomeUnknownError: The response is not one of the code interpreter.
        Exception: Those of the SDK and of httpx.
    """
    import httpx
    from e2b_code_interpreter.exceptions import format_execution_timeout_error, format_request_timeout_error
    from e2b_code_interpreter.models import extract_exception

    from ags_flows.cloud.e2b_internals import post_cell, raise_if_gone

    body = {"code": cell.code, "context_id": cell.context, "language": cell.language, "env_vars": cell.env}
    connect = request_timeout or sandbox.connection_config.request_timeout
    limit = httpx.Timeout(None, connect=connect)
    if cell.timeout:
        # The transport takes the sum of the limits for reading and for writing as that of the whole request.
        limit = httpx.Timeout(connect, read=0.9 * cell.timeout, write=0.1 * cell.timeout)
    deadline = time.monotonic() + cell.timeout if cell.timeout else float("inf")
    try:
        with post_cell(sandbox, body, limit) as response:
            pieces = _until(deadline, cell.cancelled, response.iter_bytes())
            if not response.is_success:
                raise extract_exception(httpx.Response(response.status_code, content=beginning(pieces)))
            _read(pieces, received)
    except httpx.ReadTimeout:
        raise format_execution_timeout_error() from None
    except httpx.TimeoutException as error:
        raise format_request_timeout_error() from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise_if_gone(sandbox, error)
        raise
    return received.finish()


def _until(deadline: float, cancelled: Event, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a response until a deadline: the transport's own limit begins again with each piece."""
    from httpx import ReadTimeout

    for piece in pieces:
        if cancelled.is_set():
            raise OutcomeUnknownError("The wait for code was ended: its flow run, or the process, ends.")
        if time.monotonic() > deadline:
            raise ReadTimeout("The response goes on after the time limit.")
        yield piece


def _read(pieces: Iterable[bytes], received: Received) -> None:
    for line in lines_of(pieces):
        if line is None:
            received.complete = False
            continue
        try:
            received.take(line)
        except INVALID as error:
            raise OutcomeUnknownError(
                f"The response to a cell has a line that is not of the code interpreter: {line[:100]!r}.",
                hint=_MAY_HAVE_RUN,
            ) from error
    if received.execution.execution_count is None and received.execution.error is None:
        raise OutcomeUnknownError("The response to a cell has no execution.", hint=_MAY_HAVE_RUN)


def lines_of(pieces: Iterable[bytes], longest: int = LONGEST_LINE) -> Iterator[bytes | None]:
    """Split a stream on line feeds alone.

    Args:
        pieces: The stream.
        longest: How many bytes a line may have.

    Yields:
        Each line without its line feed; None for a line that is too long.
    """
    line, too_long = bytearray(), False
    for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for part in ended:
            if too_long or len(line) + len(part) > longest:
                yield None
            else:
                yield bytes(line + part)
            line, too_long = bytearray(), False
        too_long = too_long or len(line) + len(rest) > longest
        if too_long:
            line.clear()
        else:
            line += rest
    if line or too_long:
        yield None if too_long else bytes(line)


def _parsed(line: bytes) -> dict[str, Any]:
    data = parsed(line.decode("utf-8", "replace"))
    if b"\\ud" in line.lower():
        # Half a pair of surrogates is not text: nothing could store it.
        data = parsed(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data
