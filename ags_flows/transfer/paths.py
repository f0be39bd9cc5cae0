"""Paths on both sides: how they are written in scripts, in messages, and which names are this package's own."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import uuid
from collections.abc import Iterable
from pathlib import Path

from ags_flows.cloud.home import as_name, at_home
from ags_flows.errors import TransferError

OWN = ".ags_flows"
"""How the names of this package's own files begin, in sandboxes and beside local targets. They are not transferred."""

MOST_SHOWN = 100
"""Names of entries that a result holds."""

_MAGIC = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"\\([*?\[])")


def own_name() -> str:
    """Return a new name for a temporary file or directory. Its length is the same for every target."""
    return f"{OWN}-{uuid.uuid4().hex}"


def is_own(name: str) -> bool:
    """Return True if a path, as `a/b`, has a part that is a name of this package."""
    return any(part.startswith(OWN) for part in name.split("/"))


def from_home(remote: str) -> str:
    """Return a path in a sandbox without `~`, `..` and a final `/`. Relative paths begin at the user's home.

    Raises:
        TransferError: The path is empty or has a zero byte.
    """
    if not remote or "\0" in remote:
        raise TransferError(f"The path {remote!r} is empty or has a zero byte.", hint="Give a path in the sandbox.")
    path = as_name(posixpath.normpath(at_home(remote)))
    # In POSIX, two slashes at the beginning have a special meaning.
    return path[1:] if path.startswith("//") else path


def local_path(local: Path) -> Path:
    """Return a local path that the system can use.

    Raises:
        TransferError: It has a zero byte.
    """
    if "\0" in str(local):
        raise TransferError(f"The path {shown(local)!r} has a zero byte.", hint="Give a path on this machine.")
    return local


def must_be_text(remote: str) -> None:
    """Refuse the path of a single file whose name is not UTF-8: requests to envd carry it as text.

    Raises:
        TransferError: The path is not UTF-8.
    """
    try:
        remote.encode()
    except UnicodeEncodeError:
        raise TransferError(
            f"The path {shown(remote)} is not valid UTF-8.", hint="Transfer the directory that the file is in."
        ) from None


def argument(remote: str) -> str:
    """Return a path that no command takes for an option."""
    return remote if remote.startswith(("/", "./")) else f"./{remote}"


def quoted(value: str) -> str:
    """Return a value as a word of bash. Bytes that are not UTF-8 (surrogate escapes in Python) are kept."""
    try:
        value.encode()
        return shlex.quote(value)
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in value.encode(errors="surrogateescape")) + "'"


def shown(path: str | Path | bytes) -> str:
    """Return a path for messages and results: bytes that are not UTF-8 become hexadecimal escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def shown_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names for results: in order, each once, and no more than `MOST_SHOWN`."""
    every = sorted(set(names))
    more = [f"and {len(every) - MOST_SHOWN:,} more"] if len(every) > MOST_SHOWN else []
    return (*map(shown, every[:MOST_SHOWN]), *more)


def leads_outside(name: str, aim: str) -> bool:
    """Return True if a link leads out of the directory that is transferred.

    Args:
        name: The link, relative to the directory.
        aim: What it leads to.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), aim))
    return aim.startswith("/") or path == ".." or path.startswith("../")


def has_magic(remote: str) -> bool:
    """Return True if a path is a pattern, such as `out/*.parquet`."""
    return _MAGIC.search(remote) is not None


def split_pattern(pattern: str) -> tuple[str, str]:
    r"""Return the directory that a pattern begins in, and the rest: `out/a*/b` gives `out` and `a*/b`.

    A final `/` stays. What is escaped, such as `\[`, becomes a class, `[[]`: Bash does not expand a word without one.
    """
    path = _ESCAPED.sub(r"[\1]", from_home(pattern))
    parts = path.split("/")
    fixed = next((index for index, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    base = "/".join(parts[:fixed]) or ("/" if path.startswith("/") else ".")
    return base, "/".join(parts[fixed:]) + ("/" if pattern.endswith("/") else "")


def joined(names: Iterable[str]) -> bytes:
    """Return names as a list whose elements end with a zero byte, as `xargs -0` and tar read it."""
    return b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)


def split(listing: bytes) -> list[str]:
    """Return the names of such a list."""
    return [one for one in listing.decode(errors="surrogateescape").split("\0") if one]
