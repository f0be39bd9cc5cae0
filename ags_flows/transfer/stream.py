"""Bytes on their way: counted, hashed, and within a deadline."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ags_flows.cloud.data_plane import DataPlane

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
        size: Its bytes.
        progress: Told of every piece.
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
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sent anew: always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next piece."""
        piece = self._file.read(-1 if size is None else size)
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
    plane: DataPlane, remote: str, target: Path, user: str | None, size: int, progress: Progress | None
) -> tuple[int, str]:
    """Stream a remote file into a new local one; return its bytes and its checksum.

    What there is of it when something fails is removed.
    """
    checksum = hashlib.sha256()
    arrived = 0
    try:
        with target.open("wb") as file:
            for piece in plane.read_stream(remote, user=user, timeout=deadline(size)):
                file.write(piece)
                checksum.update(piece)
                arrived += len(piece)
                if progress is not None:
                    progress(arrived, max(size, arrived))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return arrived, checksum.hexdigest()


def place_beside(target: Path) -> Path:
    """Return a new empty file in the directory of `target`, with the usual mode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(descriptor)
    # mkstemp makes files that only their owner can read; the usual mode is what a user expects.
    os.chmod(name, 0o666 & ~_umask())
    return Path(name)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it elsewhere than in /proc."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def hash_of(file: Path) -> str:
    """Return the checksum of a local file."""
    checksum = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            checksum.update(piece)
    return checksum.hexdigest()


def elapsed(started: float) -> float:
    """Return the seconds since a reading of the monotonic clock."""
    return time.monotonic() - started
