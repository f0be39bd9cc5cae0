"""Paths in a sandbox, as users write them and as a shell takes them."""

from __future__ import annotations

import posixpath
import re

_MAGIC = re.compile(r"[*?\[]")


def from_home(remote: str) -> str:
    """Return a path without `~/`: a quoted tilde means nothing to a shell, and relative paths begin at the home."""
    return remote[2:] or "." if remote.startswith("~/") else remote


def has_magic(remote: str) -> bool:
    """Whether a path is a pattern, such as `out/*.parquet`."""
    return _MAGIC.search(remote) is not None


def split_pattern(pattern: str) -> tuple[str, str]:
    """Return the directory that a pattern begins in, and the rest: `out/a*/b` gives `out` and `a*/b`."""
    parts = posixpath.normpath(from_home(pattern)).split("/")
    fixed = next((index for index, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    base = "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")
    return base, "/".join(parts[fixed:])
