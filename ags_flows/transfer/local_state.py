"""What local files and directories are at the moment, to notice that they have changed since they were sent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

READ = 64 << 20
"""Files up to this size, in bytes, are compared by content; larger ones, and directories, by sizes and times."""


def local_state(path: Path) -> list[str]:
    """Return texts that are equal as long as a file, or a directory with all that is in it, stays the same.

    A path that cannot be read has an empty list: to send it raises the error.
    """
    try:
        if path.is_dir():
            return sorted(_state_of(Path(root, name)) for root, _, names in os.walk(path) for name in ("", *names))
        if path.stat().st_size <= READ:
            return [hashlib.sha256(path.read_bytes()).hexdigest(), oct(path.stat().st_mode)]
        return [_state_of(path)]
    except OSError:
        return []


def _state_of(path: Path) -> str:
    status = path.lstat()
    changed = 0 if path.is_dir() else status.st_mtime_ns
    return f"{os.fsencode(path)!r} {status.st_mode:o} {status.st_size} {changed}"
