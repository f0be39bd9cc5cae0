"""What happens in a directory, by inotify on descriptors that cannot leave the sandbox."""

from __future__ import annotations

import asyncio
import ctypes
import os
import posixpath
import stat
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from e2b.envd.filesystem.filesystem_pb import EntryInfo, EventType, FilesystemEvent

from ags_flows.emulator.envd.entries import as_text
from ags_flows.emulator.sandbox.tree import Tree

_libc = ctypes.CDLL(None, use_errno=True)
_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x02, 0x04, 0x40, 0x80, 0x100, 0x200
_IS_DIRECTORY = 0x40000000
_HEADER = struct.Struct("iIII")

# In the order in which Go's fsnotify reports them if one event is several.
_KINDS = (
    (_CREATE | _MOVED_TO, EventType.CREATE),
    (_MOVED_FROM, EventType.RENAME),
    (_ATTRIB, EventType.CHMOD),
    (_MODIFY, EventType.WRITE),
    (_DELETE, EventType.REMOVE),
)
_WITH_ENTRY = (EventType.CREATE, EventType.WRITE, EventType.CHMOD)
MOST_UNREAD = 10_000


class Watch:
    """One watch of a directory, of what is below it too if asked.

    Args:
        files: The sandbox's files.
        path: The directory.
        recursive: Whether directories in it are watched too.
        describe: Returns the entry at a path, for events that have one; None for events without entries.

    Raises:
        OSError: The directory cannot be watched.
    """

    def __init__(self, files: Tree, path: str, recursive: bool, describe: Callable[[str], EntryInfo] | None) -> None:
        self._files = files
        self._root = path
        self._recursive = recursive
        self._describe = describe
        self._places: dict[int, str] = {}
        self._events: deque[FilesystemEvent] = deque(maxlen=MOST_UNREAD)
        self._news = asyncio.Event()
        self._closed = False
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._add("")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    async def next(self) -> FilesystemEvent | None:
        """Return the next event, None when the watch has ended."""
        while not self._events:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()

    def drain(self) -> list[FilesystemEvent]:
        """Return what happened since the last time."""
        self._read()
        events = list(self._events)
        self._events.clear()
        return events

    def close(self) -> None:
        """End the watch. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._news.set()

    def _add(self, relative: str) -> None:
        """Watch a directory by its name below the root, and those in it if asked."""
        path = posixpath.join(self._root, relative) if relative else self._root
        descriptor = self._files.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            mask = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
            number = _libc.inotify_add_watch(self._descriptor, f"/proc/self/fd/{descriptor}".encode(), mask)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify", path)
            self._places[number] = relative
            names = sorted(os.listdir(descriptor)) if self._recursive else []
        finally:
            os.close(descriptor)
        for name in names:
            child = posixpath.join(relative, name)
            with suppress(OSError):
                if stat.S_ISDIR(self._files.lstat(posixpath.join(self._root, child)).st_mode):
                    self._add(child)

    def _read(self) -> None:
        if self._closed:
            return
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except (BlockingIOError, OSError):
                return
            offset = 0
            while offset < len(data):
                number, mask, _, length = _HEADER.unpack_from(data, offset)
                name = os.fsdecode(data[offset + _HEADER.size : offset + _HEADER.size + length].rstrip(b"\0"))
                offset += _HEADER.size + length
                self._take(number, mask, name)

    def _take(self, number: int, mask: int, name: str) -> None:
        if number not in self._places or not name:
            return
        relative = posixpath.join(self._places[number], name)
        if self._recursive and mask & _IS_DIRECTORY and mask & (_CREATE | _MOVED_TO):
            with suppress(OSError):
                self._add(relative)
        for bits, kind in _KINDS:
            if mask & bits:
                entry = None
                if self._describe is not None and kind in _WITH_ENTRY:
                    with suppress(OSError):
                        entry = self._describe(posixpath.join(self._root, relative))
                self._events.append(FilesystemEvent(name=as_text(relative), type=kind, entry=entry))
                self._news.set()
