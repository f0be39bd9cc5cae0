"""Bytes in transit: counted, hashed, and within a deadline."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import TransferError, TransferIncompleteError
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.paths import own_name, shown

Progress = Callable[[int, int], None]
"""Gets how many bytes have been moved, and of how many."""

SLOWEST = 256 << 10
"""Bytes a second that a transfer is given at least, on top of a minute: a deadline, not an expectation."""


def deadline(size: int) -> float:
    """Return for how many seconds a transfer of `size` bytes may take."""
    return 60.0 + size / SLOWEST


class Outgoing(io.BufferedIOBase):
    """A file that is being sent: its checksum is known once it was read.

    Args:
        file: Open for reading, at any position.
        size: How many bytes are sent. What is added to the file later is not.
        progress: Called for each piece.
    """

    def __init__(self, file: IO[bytes], size: int, progress: Progress | None = None) -> None:
        """Start at the beginning with the first read."""
        self._file = file
        self._size = size
        self._progress = progress
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The checksum of what was read since the last `seek(0)`."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        """Return True if it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Return True if it can be sent again: always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next piece."""
        left = max(0, self._size - self._file.tell())
        piece = self._file.read(left if size is None or size < 0 else min(size, left))
        self._hash.update(piece)
        if self._progress is not None and piece:
            self._progress(self._file.tell(), self._size)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; a move to the start begins a new checksum."""
        if (offset, whence) == (0, os.SEEK_SET):
            self._hash = hashlib.sha256()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


def fetch(
    plane: DataPlane,
    remote: str,
    file: IO[bytes],
    user: str | None,
    size: int,
    what: str,
    progress: Progress | None = None,
) -> str:
    """Stream the first `size` bytes of a remote file into a local one; return their checksum.

    Args:
        plane: The sandbox.
        remote: The file.
        file: Open for writing, without a buffer.
        user: The user that reads it.
        size: What is known of it. What the sandbox sends beyond is not taken.
        what: What is being done, for messages.
        progress: Called for each piece.

    Raises:
        TransferIncompleteError: Fewer bytes came, also where the response ends as a whole one does.
    """
    checksum = hashlib.sha256()
    left = size
    with closing(plane.read_stream(remote, user=user, timeout=deadline(size))) as pieces:
        for piece in pieces:
            rest = taken = memoryview(piece)[:left]
            while rest:
                rest = rest[file.write(rest) :]
            checksum.update(taken)
            left -= len(taken)
            if progress is not None:
                progress(size - left, size)
            if not left:
                break
    if left:
        raise TransferIncompleteError(
            f"{what}: it did not arrive whole, or became shorter while it was read ({size - left:,} of {size:,} bytes "
            "came).",
            hint="It is retried whole.",
        )
    return checksum.hexdigest()


def must_fit(directory: Path, size: int, remote: str) -> None:
    """Refuse what the local disk has no space for.

    Raises:
        TransferError: There is not enough free space.
    """
    free = shutil.disk_usage(directory).free
    if size > free:
        raise TransferError(
            f"{shown(remote)} needs {size:,} bytes in {shown(directory)}, which has {free:,} free.",
            hint="Free some space, or download less.",
        )


def temporary_file_in(directory: Path) -> Path:
    """Return a new empty file in a directory, which is made with its parents. The file has the usual mode."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / own_name()
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return path


def hash_of(file: Path, size: int | None = None) -> str:
    """Return the checksum of a local file, or of its first `size` bytes."""
    checksum, left = hashlib.sha256(), sys.maxsize if size is None else size
    with local_errors(file, "cannot be read"), file.open("rb") as opened:
        while piece := opened.read(min(left, 1 << 20)):
            checksum.update(piece)
            left -= len(piece)
    return checksum.hexdigest()


def elapsed(started: float) -> float:
    """Return the seconds since a reading of the monotonic clock."""
    return time.monotonic() - started
