"""A runtime of SWE-ReX that reaches its server through AGS's gateway."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZIP_DEFLATED, ZipFile

import httpx
from pydantic import BaseModel, ValidationError
from swerex.runtime.abstract import (
    AbstractRuntime,
    Action,
    BashInterruptAction,
    BashObservation,
    CloseBashSessionResponse,
    CloseResponse,
    CloseSessionRequest,
    CloseSessionResponse,
    Command,
    CommandResponse,
    CreateBashSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    IsAliveResponse,
    Observation,
    ReadFileRequest,
    ReadFileResponse,
    UploadRequest,
    UploadResponse,
    WriteFileRequest,
    WriteFileResponse,
)

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.cloud.e2b_internals import TOKEN_HEADER
from ags_flows.cloud.gone import end_of
from ags_flows.cloud.proxies import proxy_for
from ags_flows.errors import AGSFlowsError, InstanceGoneError, WaitTimeoutError
from ags_flows.models import AccessToken
from ags_flows.run.logs import run_logger
from ags_flows.swerex import refusal
from ags_flows.swerex.own_loop import begin, client
from ags_flows.swerex.transferred import exception_of

M = TypeVar("M", bound=BaseModel)

CONNECT_TIMEOUT = 10.0
LOOK_EVERY = 30.0
"""Seconds without a response after which AGS is asked whether the sandbox lives: its connection may stay open."""

LOOK_WHILE_STARTING = 3.0

NOTICE = 2.0
"""Seconds that AGS may need to report the end of a sandbox after its connection was cut."""

FIRST_INTERVAL, LAST_INTERVAL, GROWTH = 0.1, 1.0, 1.5


_waiting: defaultdict[str, list[float | None]] = defaultdict(list)
"""By server: the time limits of requests that have no response yet."""


class GatewayRuntime(AbstractRuntime):
    """Speaks to the SWE-ReX server in a sandbox. Nothing is sent before the first call; any event loop may call.

    Requests carry the sandbox's access token, which is acquired again a minute before it expires and after a 401.
    A command has the time that its `timeout` gives it, without one as long as the sandbox lives. What SWE-ReX
    raises in the sandbox (`CommandTimeoutError`, `NonZeroExitCodeError`, ...) is raised here. Besides:

    - `InstanceGoneError`: the sandbox ended.
    - `OutcomeUnknownError`: the connection was lost after a command was sent; it is never sent again.
    - `UnreachableError`: the request did not arrive, or may be repeated.
    - `TokenExpiredError`: the token was refused, also when it was new.

    Args:
        connection: Where AGS is.
        instance_id: The instance.
        port: The server's port.
        timeout: Seconds for one request, beyond the time that a command itself may take.
        logger: By default the run's.
    """

    def __init__(
        self,
        connection: Connection,
        instance_id: str,
        *,
        port: int = 8000,
        timeout: float = 60.0,
        logger: logging.Logger | None = None,
    ) -> None:
        """Open nothing yet."""
        self.logger = logger or run_logger()  # type: ignore[assignment]
        self.instance_id = instance_id
        self.url = connection.instance_url(instance_id, port)
        self._connection = connection
        self._timeout = timeout

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:
        """Return whether the server responds; the message has the reason if not."""
        try:
            answer = await self._send("is_alive", method="GET", seconds=timeout, repeatable=True)
            if answer.status_code == 502:
                return IsAliveResponse(is_alive=False, message=f"Nothing listens at {self.url} (yet).")
            return await self._read(answer, "is_alive", IsAliveResponse, repeatable=True)
        except AGSFlowsError as error:
            return IsAliveResponse(is_alive=False, message=str(error))

    async def wait_until_alive(self, *, timeout: float = 60.0, check: Callable[[], None] | None = None) -> None:
        """Return as soon as the server responds.

        Args:
            timeout: Seconds.
            check: Raises what makes it useless to wait any longer.

        Raises:
            WaitTimeoutError: It did not respond in time.
            InstanceGoneError: The sandbox ended.
        """
        began, interval, looked = time.monotonic(), FIRST_INTERVAL, time.monotonic()
        while True:
            left = began + timeout - time.monotonic()
            alive = await self.is_alive(timeout=max(0.5, min(left, CONNECT_TIMEOUT)))
            if alive:
                return
            if check is not None:
                check()
            if time.monotonic() - looked > LOOK_WHILE_STARTING:
                await self._raise_if_ended()
                looked = time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(
                    f"SWE-ReX in {self.instance_id} does not respond after {timeout:g} s: {alive.message}",
                    hint="Give it more time (startup_timeout), or look at the server's log in the sandbox.",
                )
            await asyncio.sleep(min(interval, max(0.0, left)))
            interval = min(LAST_INTERVAL, interval * GROWTH)

    async def create_session(self, request: CreateSessionRequest) -> CreateSessionResponse:
        """Open a shell."""
        return await self._ask("create_session", request, CreateBashSessionResponse, request.startup_timeout)

    async def run_in_session(self, action: Action) -> Observation:
        """Run a command in a shell."""
        limit = action.timeout
        if isinstance(action, BashInterruptAction):
            limit = action.timeout * (action.n_retry + 1)
        return await self._ask("run_in_session", action, BashObservation, limit)

    async def close_session(self, request: CloseSessionRequest) -> CloseSessionResponse:
        """Close a shell."""
        return await self._ask("close_session", request, CloseBashSessionResponse, self._timeout)

    async def execute(self, command: Command) -> CommandResponse:
        """Run a command outside of all shells."""
        return await self._ask("execute", command, CommandResponse, command.timeout)

    async def read_file(self, request: ReadFileRequest) -> ReadFileResponse:
        """Return a text file's content."""
        return await self._ask("read_file", request, ReadFileResponse, self._timeout, repeatable=True)

    async def write_file(self, request: WriteFileRequest) -> WriteFileResponse:
        """Write a text file."""
        return await self._ask("write_file", request, WriteFileResponse, self._timeout, repeatable=True)

    async def upload(self, request: UploadRequest) -> UploadResponse:
        """Copy a file, or a directory with all that is in it, into the sandbox; a directory loses its executable bits.

        Raises:
            ValueError: There is no such file or directory.
        """
        source = Path(request.source_path).resolve()
        if source.is_file():
            return await self._upload(source, request.target_path, unzip=False)
        if not source.is_dir():
            raise ValueError(f"source_path: {source} is not a file or a directory")
        with tempfile.TemporaryDirectory() as place:
            packed = Path(place, "upload.zip")
            await asyncio.to_thread(_pack, source, packed)
            return await self._upload(packed, request.target_path, unzip=True)

    async def close(self) -> CloseResponse:
        """Close all shells of the server."""
        return await self._ask("close", None, CloseResponse, self._timeout, repeatable=True)

    @asynccontextmanager
    async def _in_line(self, limit: float | None) -> AsyncIterator[float | None]:
        """Yield the seconds that a response may take: SWE-ReX's server handles one request after the other.

        Earlier requests of this process to the same server come first, also those of other shells.
        """
        waiting = _waiting[self.url]
        seconds = None if limit is None or None in waiting else limit + self._timeout + sum(filter(None, waiting))
        waiting.append(limit)
        try:
            yield seconds
        finally:
            waiting.remove(limit)
            if not waiting:
                _waiting.pop(self.url, None)

    async def _ask(
        self, endpoint: str, request: BaseModel | None, kind: type[M], limit: float | None, *, repeatable: bool = False
    ) -> M:
        body = request.model_dump() if request is not None else None
        async with self._in_line(limit) as seconds:
            answer = await self._send(
                endpoint, seconds=seconds, endless=seconds is None, repeatable=repeatable, json=body
            )
        return await self._read(answer, endpoint, kind, repeatable=repeatable)

    async def _upload(self, source: Path, target: str, *, unzip: bool) -> UploadResponse:
        fields = {"target_path": target, "unzip": str(unzip).lower()}
        answer = await self._send("upload", endless=True, repeatable=True, data=fields, source=source)
        return await self._read(answer, "upload", UploadResponse, repeatable=True)

    async def _send(
        self,
        endpoint: str,
        *,
        method: str = "POST",
        seconds: float | None = None,
        endless: bool = False,
        repeatable: bool = False,
        source: Path | None = None,
        **parts: Any,
    ) -> httpx.Response:
        """Send a request, and again with a new token if the first token was refused: then it was not executed."""
        live = open_plane(self._connection, self.instance_id).plane.token
        used = live.at_hand()
        if used is None:
            used = await asyncio.to_thread(live.fresh)
        limit = None if endless else (seconds or self._timeout)
        request_id = str(uuid.uuid4())

        async def attempt(token: AccessToken) -> httpx.Response:
            headers = {TOKEN_HEADER: token.token.get_secret_value(), "X-Request-ID": request_id}
            http = client(verify=self._connection.verify_tls, proxy=proxy_for(self.url))
            options = {"headers": headers, "timeout": httpx.Timeout(limit, connect=CONNECT_TIMEOUT), **parts}
            if source is None:
                return await http.request(method, f"{self.url}/{endpoint}", **options)
            with source.open("rb") as content:
                files = {"file": (source.name, content)}
                return await http.request(method, f"{self.url}/{endpoint}", files=files, **options)

        try:
            answer = await self._watched(attempt(used))
            if answer.status_code in (401, 403):
                used = await asyncio.to_thread(live.renewed, used)
                answer = await self._watched(attempt(used))
        except httpx.RequestError as error:
            sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
            await self._raise_if_ended(NOTICE if sent else 0.0)
            raise refusal.of_lost_connection(self.instance_id, endpoint, error, sent and not repeatable) from error
        return answer

    async def _read(self, answer: httpx.Response, endpoint: str, kind: type[M], *, repeatable: bool) -> M:
        """Return the value of a response, or raise its error."""
        if answer.status_code == 200:
            try:
                return kind.model_validate_json(answer.content)
            except ValidationError as error:
                raise refusal.of_nonsense(self.instance_id, endpoint, error) from error
        if answer.status_code == 511 and (told := refusal.transfer_in(answer)) is not None:
            raise exception_of(told)
        await self._raise_if_ended()
        raise refusal.of_status(self.instance_id, endpoint, answer, unknown=not repeatable)

    async def _watched(self, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Wait for a response, and for the end of the sandbox, which may leave the connection open and silent."""
        waiting = begin(request)
        try:
            while not (await asyncio.wait({waiting}, timeout=LOOK_EVERY))[0]:
                await self._raise_if_ended()
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _raise_if_ended(self, patience: float = 0.0) -> None:
        """Raise if AGS reports that the sandbox has ended.

        Args:
            patience: Seconds that AGS may need to report it.
        """
        control, until = ControlPlane.of(self._connection), time.monotonic() + patience
        while True:
            gone: InstanceGoneError | None = await asyncio.to_thread(end_of, control, self.instance_id)
            if gone is not None:
                raise gone
            if time.monotonic() >= until:
                return
            await asyncio.sleep(0.3)


def _pack(source: Path, target: Path) -> None:
    """Pack a directory; a date that ZIP does not have, before 1980 or after 2107, becomes the nearest one."""
    with ZipFile(target, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_dir() or path.is_file():
                archive.write(path, path.relative_to(source))
