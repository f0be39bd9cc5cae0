"""The Process service."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import stat
from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.process.process_connect import Process as ProcessService
from e2b.envd.process.process_pb import (
    CloseStdinRequest,
    CloseStdinResponse,
    ConnectRequest,
    ConnectResponse,
    ListRequest,
    ListResponse,
    ProcessInfo,
    ProcessInput,
    ProcessSelector,
    SendInputRequest,
    SendInputResponse,
    SendSignalRequest,
    SendSignalResponse,
    Signal,
    StartRequest,
    StartResponse,
    StreamInputRequest,
    StreamInputResponse,
    UpdateRequest,
    UpdateResponse,
)
from protobuf import Oneof

from ags_flows.emulator.envd.context import Context
from ags_flows.emulator.envd.events import started
from ags_flows.emulator.envd.running import GONE, Running

KEEPALIVE = 90.0
RETENTION = 30.0
KILL_TIMEOUT = 1.0
"""Seconds for which the end of a process can still be asked for."""

_KILLS = {Signal.SIGTERM: signal.SIGTERM, Signal.SIGKILL: signal.SIGKILL}


class Processes(ProcessService):
    """The processes of one sandbox that were started through envd."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[int, Running] = {}
        self._ended: dict[int, Running] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def all(self) -> list[Running]:
        """The processes that run."""
        return list(self._running.values())

    async def close(self) -> None:
        """End every stream the way the SDKs expect of a sandbox that is gone."""
        self._closed = True
        for running in self._running.values():
            running.lose()
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=0.05)
            for pump in self._pumps:
                pump.cancel()

    async def list(self, request: ListRequest, ctx: Any, /) -> ListResponse:
        """Return what runs."""
        return ListResponse(
            processes=[ProcessInfo(config=running.config, pid=running.pid, tag=running.tag) for running in self.all]
        )

    async def start(self, request: StartRequest, ctx: Any, /) -> AsyncIterator[StartResponse]:
        """Start a process and stream its events. A time limit of the call is one of the process."""
        running = await self._launch(request, ctx)
        limit = _seconds(ctx.timeout_ms)
        listener = running.listen()
        self._pump(running)
        if limit is not None:
            timer = asyncio.get_running_loop().call_later(limit, running.send, signal.SIGKILL)
        try:
            yield StartResponse(event=started(running.pid))
            async for event in listener.events(_keepalive(ctx), limit):
                yield StartResponse(event=event)
        finally:
            running.forget(listener)
        if limit is not None:
            timer.cancel()

    async def connect(self, request: ConnectRequest, ctx: Any, /) -> AsyncIterator[ConnectResponse]:
        """Stream the output of a process from now on, or only its end event if it ended a short time ago."""
        running = self._find(request.process, ended=True)
        listener = running.listen()
        try:
            yield ConnectResponse(event=started(running.pid))
            if running.end is not None:
                yield ConnectResponse(event=running.end)
                return
            async for event in listener.events(_keepalive(ctx), _seconds(ctx.timeout_ms)):
                yield ConnectResponse(event=event)
        finally:
            running.forget(listener)

    async def update(self, request: UpdateRequest, ctx: Any, /) -> UpdateResponse:
        """Change the size of a terminal."""
        running = self._find(request.process)
        size = request.pty.size if request.pty is not None else None
        if size is not None:
            if not running.process.has_terminal:
                raise ConnectError(Code.INTERNAL, "error resizing tty: tty not assigned to process")
            running.process.resize(size.cols, size.rows)
        return UpdateResponse()

    async def send_input(self, request: SendInputRequest, ctx: Any, /) -> SendInputResponse:
        """Write to a process's input or terminal."""
        await self._write(self._find(request.process), request.input)
        return SendInputResponse()

    async def stream_input(self, request: AsyncIterator[StreamInputRequest], ctx: Any, /) -> StreamInputResponse:
        """Write a stream of messages in their order; the first one names the process."""
        try:
            await asyncio.wait_for(self._stream(request), _seconds(ctx.timeout_ms))
        except asyncio.TimeoutError:
            raise ConnectError(Code.DEADLINE_EXCEEDED, "context deadline exceeded") from None
        return StreamInputResponse()

    async def _stream(self, request: AsyncIterator[StreamInputRequest]) -> None:
        running: Running | None = None
        async for message in request:
            match message.event.value if message.event is not None else None:
                case StreamInputRequest.StartEvent() as start:
                    running = self._find(start.process)
                case StreamInputRequest.DataEvent() as data:
                    if running is None:
                        raise ConnectError(Code.INVALID_ARGUMENT, "input before the start of the stream")
                    await self._write(running, data.input)

    async def send_signal(self, request: SendSignalRequest, ctx: Any, /) -> SendSignalResponse:
        """Send KILL or TERM to the process alone, not to its children."""
        running = self._find(request.process)
        number = _KILLS.get(request.signal) if request.signal is not None else None
        if number is None:
            raise ConnectError(Code.UNIMPLEMENTED, f"invalid signal: {request.signal}")
        if running.send(number) and number == signal.SIGKILL:
            # A client may look for the process as soon as it has this response.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(running.process.wait(), KILL_TIMEOUT)
        return SendSignalResponse()

    async def close_stdin(self, request: CloseStdinRequest, ctx: Any, /) -> CloseStdinResponse:
        """Close a process's input. Idempotent."""
        running = self._find(request.process)
        if running.process.has_terminal:
            raise ConnectError(Code.FAILED_PRECONDITION, "cannot close the stdin of a terminal, send Ctrl+D instead")
        running.process.close_stdin()
        return CloseStdinResponse()

    async def _launch(self, request: StartRequest, ctx: Any) -> Running:
        if self._closed:
            raise ConnectError(Code.UNAVAILABLE, GONE)
        context = self._context
        config = request.process
        if config is None or not config.cmd:
            raise ConnectError(Code.INVALID_ARGUMENT, "no command is given")
        user = context.user_of(ctx.request_headers.get("authorization"))
        cwd = context.resolve(config.cwd or "", user)
        if not await asyncio.to_thread(_is_directory, context, cwd):
            raise ConnectError(Code.INVALID_ARGUMENT, f"cwd '{cwd}' does not exist")
        size = request.pty.size if request.pty is not None else None
        wants_input = request.stdin if request.has_field("stdin") else True
        argv = [config.cmd, *config.args]
        env = {**context.env, **config.envs}
        if any("\0" in text for text in (*argv, *env, *env.values())):
            raise ConnectError(Code.INVALID_ARGUMENT, "a command may not contain null bytes")
        try:
            process = await context.sandbox.spawn(
                argv,
                user=user,
                env=env,
                cwd=cwd,
                stdin="pipe" if wants_input else "null",
                pty=(size.cols or 80, size.rows or 24) if size is not None else None,
            )
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise ConnectError(Code.UNAVAILABLE, GONE) from error
            # The caller can change a command, but not a lack of processes, memory or descriptors.
            lacking = error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
            code = Code.RESOURCE_EXHAUSTED if lacking else Code.INVALID_ARGUMENT
            raise ConnectError(code, f"error starting process: {error.strerror or error}") from error
        return Running(process, config, request.tag if request.has_field("tag") else None)

    def _pump(self, running: Running) -> None:
        """Follow a process with or without listeners, and remember its end for a while."""
        self._running[running.pid] = running

        def ended(task: asyncio.Task[None]) -> None:
            self._pumps.discard(task)
            self._running.pop(running.pid, None)
            if task.cancelled() or self._closed:
                return
            task.exception()
            self._ended[running.pid] = running
            asyncio.get_running_loop().call_later(RETENTION, self._ended.pop, running.pid, None)

        task = asyncio.ensure_future(running.pump())
        self._pumps.add(task)
        task.add_done_callback(ended)

    def _find(self, selector: ProcessSelector | None, *, ended: bool = False) -> Running:
        places = [self._running, self._ended] if ended else [self._running]
        match selector.selector if selector is not None else None:
            case Oneof(field="pid", value=pid):
                for place in places:
                    if pid in place:
                        return place[pid]
                raise ConnectError(Code.NOT_FOUND, f"process with pid {pid} not found")
            case Oneof(field="tag", value=tag):
                for place in places:
                    for running in place.values():
                        if running.tag == tag:
                            return running
                raise ConnectError(Code.NOT_FOUND, f"process with tag {tag} not found")
        raise ConnectError(Code.INVALID_ARGUMENT, "no process is selected")

    async def _write(self, running: Running, given: ProcessInput | None) -> None:
        match given.input if given is not None else None:
            case Oneof(field="pty", value=data):
                if not running.process.has_terminal:
                    raise ConnectError(Code.INTERNAL, "error writing to tty: tty not assigned to process")
            case Oneof(field="stdin", value=data):
                if running.process.has_terminal:
                    raise ConnectError(Code.INTERNAL, "error writing to stdin: tty assigned to process")
            case _:
                raise ConnectError(Code.UNIMPLEMENTED, "invalid input type")
        try:
            await running.process.write(data)
        except OSError as error:
            raise ConnectError(Code.INTERNAL, "error writing to stdin: stdin not enabled or closed") from error


def _is_directory(context: Context, path: str) -> bool:
    try:
        return stat.S_ISDIR(context.files.stat(path).st_mode)
    except OSError:
        return False


def _seconds(milliseconds: float | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _keepalive(ctx: Any) -> float:
    asked = ctx.request_headers.get("keepalive-ping-interval", "")
    return float(asked) if asked.isdigit() and int(asked) > 0 else KEEPALIVE
