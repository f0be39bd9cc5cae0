"""Entries of directories, as envd reports them, as values."""

from __future__ import annotations

from typing import Any, Literal

from ags_flows.models import FileInfo


def file_info(entry: Any) -> FileInfo:
    """Return an entry of the SDK as a value."""
    kinds: dict[str, Literal["file", "dir", "symlink"]] = {"file": "file", "dir": "dir", "symlink": "symlink"}
    return FileInfo(
        path=entry.path,
        name=entry.name,
        type=kinds.get(getattr(entry.type, "value", ""), "other"),
        size=entry.size,
        mode=entry.mode,
        owner=entry.owner,
        group=entry.group,
        modified_at=entry.modified_time,
        symlink_target=entry.symlink_target,
    )
