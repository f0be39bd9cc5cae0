"""How envd describes a file: in Stat, in ListDir, and in the events of watchers."""

from __future__ import annotations

import os
import posixpath
import stat
from datetime import datetime, timezone

from e2b.envd.filesystem.filesystem_pb import EntryInfo, FileType
from protobuf.wkt import Timestamp

from ags_flows.emulator.envd.context import Context

XATTR = "user.e2b."


def entry_of(context: Context, path: str) -> EntryInfo:
    """Return the entry at a path; for a link, that of its target.

    Raises:
        OSError: There is nothing at the path.
    """
    files = context.files
    own = files.lstat(path)
    about, target = own, None
    if stat.S_ISLNK(own.st_mode):
        try:
            target = files.real_path(path)
            about = files.stat(path)
        except OSError:
            # It leads nowhere: envd names the link itself, and no type.
            target = path
    dangling = target == path
    kind = FileType.UNSPECIFIED if dangling else type_of(about)
    return EntryInfo(
        name=as_text(posixpath.basename(path)) or "/",
        type=kind,
        path=as_text(path),
        size=own.st_size,
        mode=stat.S_IMODE(about.st_mode) & 0o777,
        permissions=go_mode(own.st_mode),
        owner=context.sandbox.name_of(own.st_uid),
        group=context.sandbox.name_of(own.st_gid),
        modified_time=Timestamp.from_datetime(datetime.fromtimestamp(own.st_mtime, timezone.utc)),
        symlink_target=None if target is None else as_text(target),
        metadata=metadata_of(context, path) if kind is FileType.FILE else {},
    )


def as_text(name: str) -> str:
    """Return a name as messages can carry it: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode(errors="replace")


def type_of(status: os.stat_result) -> FileType:
    """Return the type of a file."""
    if stat.S_ISDIR(status.st_mode):
        return FileType.DIRECTORY
    return FileType.FILE if stat.S_ISREG(status.st_mode) else FileType.UNSPECIFIED


def go_mode(mode: int) -> str:
    """Return a mode as Go's `fs.FileMode` prints it."""
    kinds = [
        ("d", stat.S_ISDIR(mode)),
        ("L", stat.S_ISLNK(mode)),
        ("D", stat.S_ISBLK(mode) or stat.S_ISCHR(mode)),
        ("p", stat.S_ISFIFO(mode)),
        ("S", stat.S_ISSOCK(mode)),
        ("u", bool(mode & stat.S_ISUID)),
        ("g", bool(mode & stat.S_ISGID)),
        ("c", stat.S_ISCHR(mode)),
        ("t", bool(mode & stat.S_ISVTX)),
    ]
    letters = "".join(letter for letter, holds in kinds if holds) or "-"
    return letters + stat.filemode(mode & 0o777)[1:]


def metadata_of(context: Context, path: str) -> dict[str, str]:
    """Return the metadata that an upload gave a file; it is kept in extended attributes."""
    try:
        descriptor = context.files.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        names = [name for name in os.listxattr(descriptor) if name.startswith(XATTR)]
        return {name[len(XATTR) :]: os.getxattr(descriptor, name).decode("utf-8", "replace") for name in names}
    except OSError:
        return {}
    finally:
        os.close(descriptor)


def set_metadata(descriptor: int, metadata: dict[str, str]) -> None:
    """Replace a file's metadata as a whole."""
    try:
        for name in os.listxattr(descriptor):
            if name.startswith(XATTR):
                os.removexattr(descriptor, name)
        for key, value in metadata.items():
            os.setxattr(descriptor, f"{XATTR}{key}", value.encode())
    except OSError:
        # A file system without extended attributes keeps none.
        return
