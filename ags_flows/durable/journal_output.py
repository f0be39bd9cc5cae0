"""Both output streams of a durable command, read from the files of its journal."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from functools import partial

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.durable.output import OnLine, OutputStream
from ags_flows.durable.waiting import Waiting, may_be_wrong

CALL_TIMEOUT = 30.0
PIECE = 1 << 19

LONGEST_READ = 1.0
"""Seconds for which a stream is read between two looks for the end of the command."""


class JournalOutput:
    """The part of a command's output that this process has read.

    Args:
        plane: The sandbox.
        waiting: The waits of the command.
        user: The user that runs it.
        limit: Bytes of each stream to keep: head and tail of longer output.
        on_line: Called with each line. If there is none, only the bytes that are kept are read.

    Attributes:
        is_behind: Whether there is more than was read.
        has_moved: Whether the last `read` found anything.
    """

    def __init__(
        self, plane: DataPlane, waiting: Waiting, user: str | None, limit: int, on_line: OnLine | None
    ) -> None:
        self.is_behind = False
        self.has_moved = False
        self._plane = plane
        self._waiting = waiting
        self._user = user
        self._has_reader = on_line is not None
        self._streams = {"out": OutputStream("stdout", limit, on_line), "err": OutputStream("stderr", limit, on_line)}
        self._ranges = True

    @property
    def kept(self) -> tuple[HeadAndTail, HeadAndTail]:
        """Head and tail of stdout, and of stderr."""
        return self._streams["out"].kept, self._streams["err"].kept

    @property
    def has_begun(self) -> bool:
        """Whether anything was read."""
        return any(stream.offset for stream in self._streams.values())

    def take_whole(self, contents: Mapping[str, bytes]) -> None:
        """Take the whole content of both files, `out` and `err`."""
        for name, stream in self._streams.items():
            stream.take(contents[name], final=True)

    def close(self) -> None:
        """End the last line of both streams."""
        for stream in self._streams.values():
            stream.take(b"", final=True)

    def read(self, directory: str, sizes: Mapping[str, int], *, skips: bool) -> bool:
        """Read what is new, for a limited time.

        Args:
            directory: The journal.
            sizes: The sizes of its files.
            skips: Whether the middle of long output is skipped, in the log too.

        Returns:
            False if a file has less than its size.
        """
        self.is_behind = self.has_moved = False
        for name, stream in self._streams.items():
            size = sizes.get(name, 0)
            self.has_moved |= stream.offset < size
            begun = time.monotonic()
            while time.monotonic() - begun < LONGEST_READ:
                if skips or not self._has_reader:
                    stream.skip(size)
                if stream.offset >= size:
                    break
                path, offset = f"{directory}/{name}", stream.offset
                piece = self._waiting.patiently(partial(self._piece, path, offset), may_be_wrong)
                if not piece:
                    return False
                stream.take(piece)
                self._waiting.check_cancelled()
            self.is_behind |= stream.offset < size
        return True

    def _piece(self, path: str, offset: int) -> bytes:
        if self._ranges:
            piece = self._plane.read_range(path, offset, PIECE, user=self._user)
            if piece is not None:
                return piece
            self._ranges = False
        # The sandbox does not support ranges. base64 preserves bytes that are not UTF-8.
        text = self._plane.run(
            f"tail -c +{offset + 1} {path} | head -c {PIECE} | base64 | tr -d '\\n'",
            user=self._user,
            timeout=CALL_TIMEOUT,
            limit=PIECE * 2,
            profile=False,
        ).stdout
        return base64.b64decode(text)
