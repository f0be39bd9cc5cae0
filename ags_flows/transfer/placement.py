"""Where entries of a directory are written before they are renamed to their targets.

A new directory is renamed as a whole. In a directory that exists, each entry is renamed. So an entry is written into a
temporary directory in the nearest directory above it that exists: that one is writable if the target is, it is on the
same file system, and neither its mode nor its owner changes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import Literal

Kind = Literal["missing", "directory", "other"]
"""What stands at a target: nothing, a directory (also by a link), or something else (also a link to a file)."""


def place(
    entries: Iterable[tuple[str, bool]],
    kind_of: Callable[[str, bool], Kind],
    refuse: Callable[[str, bool], Exception],
    own: str,
) -> dict[str, str]:
    """Return the temporary path of each entry that is written, after it was found that its target may be replaced.

    Args:
        entries: Names and whether they are directories; a directory comes before what is in it.
        kind_of: Returns what stands at the target of an entry; gets its name and whether it is a directory.
        refuse: Returns the error for an entry whose target must not be replaced.
        own: The name of the temporary directories.
    """
    temporary: dict[str, str] = {}
    existing = {""}
    for name, is_directory in entries:
        parent, base = posixpath.split(name)
        if parent not in existing:
            temporary[name] = f"{temporary[parent]}/{base}"
            continue
        kind = kind_of(name, is_directory)
        if is_directory and kind == "directory":
            existing.add(name)
            continue
        if kind == "directory" or (is_directory and kind == "other"):
            raise refuse(name, is_directory)
        temporary[name] = f"{parent}/{own}/{base}" if parent else f"{own}/{base}"
    return temporary


def parents_of(temporary: Iterable[str], own: str) -> list[str]:
    """Return the existing directories in which the temporary directories of some paths are; `.` is the target."""
    return list(dict.fromkeys(path.partition(own)[0].rstrip("/") or "." for path in temporary))
