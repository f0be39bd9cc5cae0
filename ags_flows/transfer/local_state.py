"""The content of local files and directories, to notice that they have changed since they were sent."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from ags_flows.errors import TransferError
from ags_flows.transfer.exclusion import Exclude, Exclusion, Links
from ags_flows.transfer.packing import scan

MOST_READ = 64 << 20
"""Up to this number of bytes in total, files are compared by content. Larger ones are compared by size and time."""


def local_state(path: Path, exclude: Exclude = (), links: Links = "keep") -> str:
    """Return a digest of what is sent: names below the path, modes, links and content.

    It does not depend on where the path is, so that it is the same on another machine.

    Args:
        path: A file or a directory.
        exclude: Patterns of what is left out.
        links: Whether links that lead outside of the directory are kept.

    Returns:
        64 hexadecimal digits; empty if the path cannot be read, so that sending it raises the error.
    """
    digest, left = hashlib.sha256(), MOST_READ
    try:
        if not path.is_dir() and not path.is_file():
            # A device or a pipe may have no end.
            return ""
        names = [one.name for one in scan(path, Exclusion(exclude), links)[0]] if path.is_dir() else [""]
        for name in names:
            one = path / name
            status = one.lstat() if name else one.stat()
            digest.update(f"{name!r} {status.st_mode:o} ".encode(errors="surrogateescape"))
            if stat.S_ISLNK(status.st_mode):
                digest.update(f"{one.readlink()}".encode(errors="surrogateescape"))
            elif stat.S_ISREG(status.st_mode) and status.st_size <= left:
                left -= status.st_size
                digest.update(hashlib.sha256(one.read_bytes()).digest())
            elif stat.S_ISREG(status.st_mode):
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    except (OSError, TransferError):
        return ""
    return digest.hexdigest()
