"""The code interpreter's routes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from .context import Context, Restarted
from .execution import Execution
from .kernel import KernelFailed
from .languages import NoKernel
from .results import KEEPALIVE, Line, error_line, line_of

if TYPE_CHECKING:
    from .interpreter import CodeInterpreter

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEEPALIVE_SECONDS = 5.0
MOST_AT_ONCE = 64
"""Messages of a kernel that are sent together."""

MOST_BYTES = 64 * 1024 * 1024
_CONTEXT = re.compile(r"/contexts/(?P<context>[^/]+)(?P<restart>/restart)?")


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Gone(Exception):
    """The client has gone away."""


class Api:
    """The routes of one code interpreter, an ASGI application.

    Raises, when it is called:
        ConnectionError: The response breaks off; close the connection without a proper end.
    """

    def __init__(self, interpreter: CodeInterpreter) -> None:
        self._interpreter = interpreter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        try:
            if self._interpreter.ended:
                raise ConnectionError("the sandbox has ended")
            await self._answer(scope, receive, send)
        except _Refusal as refusal:
            await _send(send, refusal.status, str(refusal), "text/plain; charset=utf-8")
        except NoKernel as error:
            await _send(send, 500, str(error), "text/plain; charset=utf-8")
        except KernelFailed as error:
            if self._interpreter.ended:
                raise ConnectionError("the sandbox has ended") from error
            await _send(send, 500, f"The kernel could not be started: {error}", "text/plain; charset=utf-8")
        except ConnectionError:
            raise
        except OSError as error:
            if self._interpreter.ended:
                raise ConnectionError("the sandbox has ended") from error
            await _send(send, 507, f"The kernel could not be started: {error}", "text/plain; charset=utf-8")
        except _Gone:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/health" and method in ("GET", "HEAD"):
            await _send(send, 200, json.dumps("OK"))
        elif path == "/execute" and method == "POST":
            await self._execute(await _read_object(receive), receive, send)
        elif path == "/contexts" and method == "GET":
            await _send(send, 200, json.dumps([each.describe() for each in self._interpreter.contexts]))
        elif path == "/contexts" and method == "POST":
            body = await _read_object(receive)
            context = await self._interpreter.create(_text(body, "language"), _text(body, "cwd"))
            await _send(send, 200, json.dumps(context.describe()))
        elif match := _CONTEXT.fullmatch(path):
            context = self._context(match["context"])
            if match["restart"] and method == "POST":
                await context.restart()
            elif method == "DELETE" and not match["restart"]:
                await self._interpreter.remove(context)
            else:
                raise _Refusal(405, f"{method} is not for {path}")
            await _send(send, 200, "null")
        elif path in ("/health", "/execute", "/contexts"):
            raise _Refusal(405, f"{method} is not for {path}")
        else:
            raise _Refusal(404, f"Nothing is at {path}")

    def _context(self, context_id: str) -> Context:
        context = self._interpreter.context(context_id)
        if context is None:
            raise _Refusal(404, f"Context {context_id} not found")
        return context

    async def _execute(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        code = body.get("code")
        if not isinstance(code, str):
            raise _Refusal(400, "code must be a string")
        context_id, language = _text(body, "context_id"), _text(body, "language")
        if context_id and language:
            raise _Refusal(400, "Only one of context_id or language can be provided")
        variables = body.get("env_vars") or {}
        if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
            raise _Refusal(400, "env_vars must be an object of strings")
        context = self._context(context_id) if context_id else self._interpreter.default(language)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            execution = await context.execute(code, variables)
            try:
                await send({"type": "http.response.start", "status": 200, "headers": _headers("application/x-ndjson")})
                await self._stream(context, execution, gone, send)
            finally:
                if not execution.ended and not self._interpreter.ended:
                    context.abandon(execution)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _stream(self, context: Context, execution: Execution, gone: asyncio.Future[None], send: Send) -> None:
        """Pass on the output of an execution, until it ends or the client goes away."""
        waiting: asyncio.Future[Any] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(execution.messages.get())
                await asyncio.wait({waiting, gone}, timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if not waiting.done():
                    await _send_lines(send, [KEEPALIVE])
                    continue
                items, waiting = [waiting.result()], None
                while not execution.messages.empty() and len(items) < MOST_AT_ONCE:
                    items.append(execution.messages.get_nowait())
                lines, more = self._lines(items, context)
                await _send_lines(send, lines)
                if not more:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
        finally:
            if waiting is not None:
                waiting.cancel()

    def _lines(self, items: list[Any], context: Context) -> tuple[list[Line], bool]:
        """Return the lines for some messages, and whether more can come."""
        lines: list[Line] = []
        for item in items:
            if item is None:
                return lines, False
            if isinstance(item, BaseException):
                if self._interpreter.ended:
                    raise ConnectionError("the sandbox has ended")
                lines.append(_ended_early(item))
                return lines, False
            kind, content = item
            line = line_of(kind, content, context.language)
            if line is not None:
                lines.append(line)
        return lines, True


def _ended_early(reason: BaseException) -> Line:
    if isinstance(reason, Restarted):
        return error_line("ContextRestarting", str(reason))
    if isinstance(reason, BrokenPipeError):
        return error_line("UnexpectedEndOfExecution", "The context was removed before the execution was finished")
    return error_line(
        "KernelDied", f"The kernel ended ({reason}); its state is lost, the next execution starts another"
    )


async def _read_object(receive: Receive) -> dict[str, Any]:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            raise _Refusal(413, f"The request is larger than {MOST_BYTES} bytes")
        if not message.get("more_body", False):
            break
    try:
        body = json.loads(b"".join(parts) or b"{}")
    except (ValueError, RecursionError) as error:
        raise _Refusal(400, f"The request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _Refusal(400, "The request is not a JSON object")
    return body


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise _Refusal(400, f"{name} must be a string")
    return value


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(kind: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", kind.encode())]


async def _send_lines(send: Send, lines: list[Line]) -> None:
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _send(send: Send, status: int, text: str, kind: str = "application/json") -> None:
    body = text.encode("utf-8", "replace")
    headers = [*_headers(kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
