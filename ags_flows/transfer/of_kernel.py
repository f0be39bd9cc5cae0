"""Files whose content the kernel makes while they are read, as in /proc and /sys: their size is another one.

They have no blocks. A sparse file has none either, but as many bytes as its size.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ags_flows.errors import TransferError
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.paths import shown

LARGEST_SIZE = 64 << 10
"""The largest size that such a file shows: 0 in /proc, a page in /sys."""

MOST_CONTENT = 64 << 20
"""Bytes of such a file that are transferred."""


def is_of_kernel(path: str | Path, status: os.stat_result) -> bool:
    """Return True if a local file has another size than its content.

    Args:
        path: A regular file.
        status: Its status.
    """
    if status.st_blocks or status.st_size > LARGEST_SIZE:
        return False
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return len(file.read(status.st_size + 1)) != status.st_size


@contextmanager
def readable(local: Path) -> Iterator[Path]:
    """Yield a local file, or a copy of one that the kernel makes, which has a size.

    Raises:
        TransferError: It is not a file that can be read, or the kernel makes more of it than is transferred.
    """
    with local_errors(local, "cannot be read"):
        status = local.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{shown(local)} is not a file.", hint="Use upload_directory for directories.")
        with local.open("rb") as file:
            content = file.read(MOST_CONTENT + 1) if is_of_kernel(local, status) else None
    if content is None:
        yield local
        return
    if len(content) > MOST_CONTENT:
        raise TransferError(f"{shown(local)} is made by the kernel, and has more than {MOST_CONTENT:,} bytes.")
    with tempfile.NamedTemporaryFile(prefix="ags-flows-") as copy:
        copy.write(content)
        copy.flush()
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
        yield Path(copy.name)
