"""The code interpreter's routes."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ags_flows.emulator.code_interpreter.context import Context, Restarted
from ags_flows.emulator.code_interpreter.execution import Execution
from ags_flows.emulator.code_interpreter.kernel import KernelFailed
from ags_flows.emulator.code_interpreter.languages import NoKernel
from ags_flows.emulator.code_interpreter.results import KEEPALIVE, Line, error_line, line_of
from ags_flows.emulator.http import JsonResponse, disconnected, read

if TYPE_CHECKING:
    from ags_flows.emulator.code_interpreter.interpreter import CodeInterpreter

KEEPALIVE_SECONDS = 5.0
MOST_AT_ONCE = 64
"""Messages of a kernel that are sent together."""

MOST_BYTES = 64 * 1024 * 1024


class Api:
    """The routes of one code interpreter, an ASGI application.

    Raises, when it is called:
        ConnectionError: The response breaks off; close the connection without a proper end.
    """

    def __init__(self, interpreter: CodeInterpreter) -> None:
        self._interpreter = interpreter
        self._router = Router(
            [
                Route("/health", self._health),
                Route("/execute", self._execute, methods=["POST"]),
                Route("/contexts", self._list),
                Route("/contexts", self._create, methods=["POST"]),
                Route("/contexts/{id}", self._remove, methods=["DELETE"]),
                Route("/contexts/{id}/restart", self._restart, methods=["POST"]),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        status = 500
        try:
            if self._interpreter.ended:
                raise ConnectionError("the sandbox has ended")
            return await self._router(scope, receive, send)
        except ClientDisconnect:
            return
        except HTTPException as refusal:
            status, message = refusal.status_code, refusal.detail
        except NoKernel as error:
            message = str(error)
        except ConnectionError:
            raise
        except (KernelFailed, OSError) as error:
            if self._interpreter.ended:
                raise ConnectionError("the sandbox has ended") from error
            status = 507 if isinstance(error, OSError) else 500
            message = f"The kernel could not be started: {error}"
        await PlainTextResponse(message.encode("utf-8", "replace"), status)(scope, receive, send)

    async def _health(self, request: Request) -> Response:
        return JsonResponse("OK")

    async def _list(self, request: Request) -> Response:
        return JsonResponse([each.describe() for each in self._interpreter.contexts])

    async def _create(self, request: Request) -> Response:
        body = await _object(request)
        context = await self._interpreter.create(_text(body, "language"), _text(body, "cwd"))
        return JsonResponse(context.describe())

    async def _remove(self, request: Request) -> Response:
        await self._interpreter.remove(self._context(request.path_params["id"]))
        return JsonResponse(None)

    async def _restart(self, request: Request) -> Response:
        await self._context(request.path_params["id"]).restart()
        return JsonResponse(None)

    def _context(self, context_id: str) -> Context:
        context = self._interpreter.context(context_id)
        if context is None:
            raise HTTPException(404, f"Context {context_id} not found")
        return context

    async def _execute(self, request: Request) -> ASGIApp:
        body = await _object(request)
        code = body.get("code")
        if not isinstance(code, str):
            raise HTTPException(400, "code must be a string")
        context_id, language = _text(body, "context_id"), _text(body, "language")
        if context_id and language:
            raise HTTPException(400, "Only one of context_id or language can be provided")
        variables = body.get("env_vars") or {}
        if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
            raise HTTPException(400, "env_vars must be an object of strings")
        context = self._context(context_id) if context_id else self._interpreter.default(language)
        return partial(self._respond, context, code, variables)

    async def _respond(
        self, context: Context, code: str, variables: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            execution = await context.execute(code, variables)
            try:
                headers = [(b"content-type", b"application/x-ndjson")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
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


async def _object(request: Request) -> dict[str, Any]:
    raw = await read(request, MOST_BYTES)
    if len(raw) > MOST_BYTES:
        raise HTTPException(413, f"The request is larger than {MOST_BYTES} bytes")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "The request is not a JSON object")
    return body


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise HTTPException(400, f"{name} must be a string")
    return value


async def _send_lines(send: Send, lines: list[Line]) -> None:
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
