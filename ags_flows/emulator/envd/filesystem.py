"""The Filesystem service."""

from __future__ import annotations

import asyncio
import posixpath
import stat
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem.filesystem_connect import Filesystem as FilesystemService
from e2b.envd.filesystem.filesystem_pb import (
    CreateWatcherRequest,
    CreateWatcherResponse,
    EntryInfo,
    FilesystemEvent,
    FileType,
    GetWatcherEventsRequest,
    GetWatcherEventsResponse,
    ListDirRequest,
    ListDirResponse,
    MakeDirRequest,
    MakeDirResponse,
    MoveRequest,
    MoveResponse,
    RemoveRequest,
    RemoveResponse,
    RemoveWatcherRequest,
    RemoveWatcherResponse,
    StatRequest,
    StatResponse,
    WatchDirRequest,
    WatchDirResponse,
)
from protobuf import Oneof

from ags_flows.emulator.envd.context import Context, refusal
from ags_flows.emulator.envd.entries import as_text, entry_of, type_of
from ags_flows.emulator.envd.running import CUT_OFF
from ags_flows.emulator.envd.watching import Watch

R = TypeVar("R")

KEEPALIVE = 90.0

_START: Oneof[Literal["start"], WatchDirResponse.StartEvent] = Oneof("start", WatchDirResponse.StartEvent())
_KEEPALIVE: Oneof[Literal["keepalive"], WatchDirResponse.KeepAlive] = Oneof("keepalive", WatchDirResponse.KeepAlive())


class Filesystem(FilesystemService):
    """The files of one sandbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watchers: dict[str, Watch] = {}
        self._streams: set[Watch] = set()

    async def close(self) -> None:
        """End every watch."""
        for watch in [*self._watchers.values(), *self._streams]:
            watch.close()
        self._watchers.clear()

    async def stat(self, request: StatRequest, ctx: Any, /) -> StatResponse:
        """Return what is at a path."""
        path = self._path(request.path, ctx)
        return StatResponse(entry=await self._do("file not found", lambda: entry_of(self._context, path)))

    async def make_dir(self, request: MakeDirRequest, ctx: Any, /) -> MakeDirResponse:
        """Make a directory with its parents."""
        path, owner = self._path(request.path, ctx), self._owner(ctx)

        def make() -> EntryInfo:
            files = self._context.files
            try:
                known = files.stat(path)
            except FileNotFoundError:
                files.make_directories(path, owner)
                return entry_of(self._context, path)
            if stat.S_ISDIR(known.st_mode):
                raise ConnectError(Code.ALREADY_EXISTS, f"directory already exists: {path}")
            raise ConnectError(Code.INVALID_ARGUMENT, f"path already exists but it is not a directory: {path}")

        return MakeDirResponse(entry=await self._do(f"error making directory {path}", make))

    async def move(self, request: MoveRequest, ctx: Any, /) -> MoveResponse:
        """Rename; the parents of the destination are made."""
        source, target = self._path(request.source, ctx), self._path(request.destination, ctx)
        owner = self._owner(ctx)

        def move() -> EntryInfo:
            files = self._context.files
            files.lstat(source)
            files.make_directories(posixpath.dirname(target), owner)
            files.move(source, target)
            return entry_of(self._context, target)

        return MoveResponse(entry=await self._do(f"error moving {source}", move))

    async def list_dir(self, request: ListDirRequest, ctx: Any, /) -> ListDirResponse:
        """Return what is in a directory, in the order of a walk, links not followed."""
        path = self._path(request.path, ctx)
        depth = request.depth or 1

        def look() -> list[EntryInfo]:
            if not stat.S_ISDIR(self._context.files.stat(path).st_mode):
                raise ConnectError(Code.INVALID_ARGUMENT, f"path is not a directory: {path}")
            return list(self._walk(path, self._context.files.real_path(path), depth))

        return ListDirResponse(entries=await self._do(f"directory not found: {path}", look))

    async def remove(self, request: RemoveRequest, ctx: Any, /) -> RemoveResponse:
        """Remove a path and all below it; nothing there is a success."""
        path = self._path(request.path, ctx)
        await self._do(f"error removing {path}", lambda: self._context.files.remove(path))
        return RemoveResponse()

    async def watch_dir(self, request: WatchDirRequest, ctx: Any, /) -> AsyncIterator[WatchDirResponse]:
        """Stream what happens in a directory."""
        watch = await self._watch(self._path(request.path, ctx), request.recursive, request.include_entry)
        asked = ctx.request_headers.get("keepalive-ping-interval", "")
        interval = float(asked) if asked.isdigit() and int(asked) > 0 else KEEPALIVE
        self._streams.add(watch)
        try:
            yield WatchDirResponse(event=_START)
            while True:
                try:
                    event = await asyncio.wait_for(watch.next(), interval)
                except asyncio.TimeoutError:
                    yield WatchDirResponse(event=_KEEPALIVE)
                    continue
                if event is None:
                    raise ConnectError(Code.UNAVAILABLE, CUT_OFF)
                yield WatchDirResponse(event=_seen(event))
        finally:
            self._streams.discard(watch)
            watch.close()

    async def create_watcher(self, request: CreateWatcherRequest, ctx: Any, /) -> CreateWatcherResponse:
        """Begin to collect what happens in a directory."""
        watch = await self._watch(self._path(request.path, ctx), request.recursive, request.include_entry)
        name = f"w{uuid.uuid4().hex}"
        self._watchers[name] = watch
        return CreateWatcherResponse(watcher_id=name)

    async def get_watcher_events(self, request: GetWatcherEventsRequest, ctx: Any, /) -> GetWatcherEventsResponse:
        """Return what happened since the last time."""
        watch = self._watchers.get(request.watcher_id)
        if watch is None:
            raise ConnectError(Code.NOT_FOUND, f"watcher with id {request.watcher_id} not found")
        return GetWatcherEventsResponse(events=watch.drain())

    async def remove_watcher(self, request: RemoveWatcherRequest, ctx: Any, /) -> RemoveWatcherResponse:
        """End a watcher."""
        watch = self._watchers.pop(request.watcher_id, None)
        if watch is None:
            raise ConnectError(Code.NOT_FOUND, f"watcher with id {request.watcher_id} not found")
        watch.close()
        return RemoveWatcherResponse()

    async def _watch(self, path: str, recursive: bool, include_entry: bool) -> Watch:
        def begin() -> str:
            if not stat.S_ISDIR(self._context.files.stat(path).st_mode):
                raise ConnectError(Code.INVALID_ARGUMENT, f"path {path} not a directory: {path}")
            return path

        await self._do(f"path {path} not found", begin)

        def describe(at: str) -> EntryInfo:
            return entry_of(self._context, at)

        return Watch(self._context.files, path, recursive, describe if include_entry else None)

    def _walk(self, shown: str, real: str, depth: int) -> Any:
        for name in self._context.files.names(real):
            here = posixpath.join(real, name)
            try:
                entry = entry_of(self._context, here)
                is_directory = type_of(self._context.files.lstat(here)) is FileType.DIRECTORY
            except FileNotFoundError:
                continue
            entry.path = as_text(posixpath.join(shown, name))
            if entry.type is not FileType.UNSPECIFIED:
                yield entry
            if depth > 1 and is_directory:
                yield from self._walk(posixpath.join(shown, name), here, depth - 1)

    def _path(self, path: str, ctx: Any) -> str:
        return self._context.resolve(path, self._user(ctx))

    def _owner(self, ctx: Any) -> tuple[int, int]:
        return self._context.owner(self._user(ctx))

    def _user(self, ctx: Any) -> str:
        return self._context.user_of(ctx.request_headers.get("authorization"))

    async def _do(self, what: str, action: Callable[[], R]) -> R:
        try:
            return await asyncio.to_thread(action)
        except OSError as error:
            raise refusal(error, what) from error


def _seen(event: FilesystemEvent) -> Oneof[Literal["filesystem"], FilesystemEvent]:
    return Oneof("filesystem", event)
