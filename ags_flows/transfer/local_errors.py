"""Errors of the local file system as errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ags_flows.errors import AGSFlowsError, TransferError
from ags_flows.transfer.paths import shown


@contextmanager
def local_errors(path: Path, what: str) -> Iterator[None]:
    """Raise TransferError, with the path in the message, for an OSError of the block.

    Args:
        path: Named where the error names no path.
        what: What fails, such as `cannot be read`.
    """
    try:
        yield
    except AGSFlowsError:
        raise
    except OSError as error:
        # Of a rename, the second path is the target, and the first one a temporary file.
        named = next((name for name in (error.filename2, error.filename) if isinstance(name, (str, bytes))), path)
        where = None if path.is_absolute() else f"Relative paths begin at {Path.cwd()}."
        raise TransferError(f"{shown(named)} {what}: {error.strerror or error}.", hint=where) from error
