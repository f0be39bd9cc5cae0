"""Archives that come out of a sandbox: all of their entries are checked before one is written."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ags_flows.errors import TransferError
from ags_flows.transfer.paths import leads_outside, shown

MOST_ENTRIES = 1_000_000
LARGEST_HEADER = 1 << 16
"""Bytes of one header of an archive: it is held in memory."""

LONGEST_PATH = 4096
"""Characters of a path, and of what a link leads to: Linux has no longer ones."""

MOST_PATHS = 64 << 20
"""Bytes of memory for all paths of an archive together."""

PIECE = 1 << 20
_SECONDS = re.compile(r"(-?)(\d{1,18})(?:\.(\d*))?", re.ASCII)
DIRECTORY_MODE = 0o755
"""Of directories that an archive has no entry for."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An entry of an archive.

    Attributes:
        name: Relative to the directory, as `a/b`; empty for the directory itself.
        type: The type of the tar format.
        mode: Permission bits.
        modified: Nanoseconds since 1970, None where the archive has none.
        size: Bytes of content.
        offset: Where its content begins in the archive.
        link: What a link leads to.
    """

    name: str
    type: bytes
    mode: int
    modified: int | None
    size: int = 0
    offset: int = 0
    link: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.type == tarfile.DIRTYPE

    @property
    def is_special(self) -> bool:
        """Whether it is a device or a pipe, which has no content."""
        return self.type not in (tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)

    @property
    def leads_outside(self) -> bool:
        """Whether it is a link to something outside of the directory."""
        return self.type == tarfile.SYMTYPE and leads_outside(self.name, self.link)


class _Headers:
    """An archive for reading its headers: refuses those that are large."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header is larger than {LARGEST_HEADER:,} bytes")
        return self._file.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def contents(file: IO[bytes], remote: str) -> list[Packed]:
    """Return the entries of an archive that came out of a sandbox, after all were checked.

    Args:
        file: The archive, open for reading. It must be plain tar.
        remote: Where it came from, for messages.

    Returns:
        A directory comes before what is in it, and all else before hard links. Directories that the archive has no
        entry for are added.

    Raises:
        TransferError: An entry would be written outside of the target, or is of an unknown type.
    """
    found = _Found(remote)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            while (header := tar.next()) is not None:
                # The tarfile module keeps all headers otherwise.
                tar.members = []
                if tar.pax_headers:
                    raise tarfile.ReadError("it has a header for all entries")
                entry = found.add(_checked(header, found.entries, remote))
                if entry.offset + entry.size > size:
                    raise TransferError(f"{remote} cannot be unpacked: an entry is longer than the archive.")
    except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
        why = str(error) if isinstance(error, tarfile.TarError) else "a header is not valid"
        raise TransferError(f"{remote} cannot be unpacked: {why}.") from error
    for name in list(found.entries):
        for parent in _parents(name):
            above = found.entries.get(parent) or found.add(Packed(parent, tarfile.DIRTYPE, DIRECTORY_MODE, None))
            if not above.is_directory:
                raise _refused(name, "would be written through a link or a file", remote)
    # A directory comes before what is in it, because its name is the shorter one.
    return sorted(found.entries.values(), key=lambda entry: (entry.type == tarfile.LNKTYPE, entry.name))


class _Found:
    """The entries of an archive by their names, within limits.

    Args:
        remote: Where it came from, for messages.
    """

    def __init__(self, remote: str) -> None:
        self.entries: dict[str, Packed] = {}
        self._remote = remote
        self._size = 0

    def add(self, entry: Packed) -> Packed:
        """Add an entry, and return it."""
        if max(len(entry.name), len(entry.link)) > LONGEST_PATH:
            raise _refused(entry.name[:100], f"has a path of more than {LONGEST_PATH:,} characters", self._remote)
        self.entries[entry.name] = entry
        self._size += sum(len(path) * (1 if path.isascii() else 4) for path in (entry.name, entry.link))
        if len(self.entries) > MOST_ENTRIES or self._size > MOST_PATHS:
            raise TransferError(
                f"{self._remote} has more than {MOST_ENTRIES:,} entries, or {MOST_PATHS:,} bytes of paths.",
                hint="Pack it in the sandbox first.",
            )
        return entry


def _checked(header: tarfile.TarInfo, found: dict[str, Packed], remote: str) -> Packed:
    name = posixpath.normpath(header.name)
    if header.name.startswith("/") or name == ".." or name.startswith("../"):
        raise _refused(header.name, "would be written outside of the target", remote)
    if "\0" in name or "\0" in header.linkname:
        raise _refused(header.name, "has a zero byte", remote)
    name = "" if name == "." else name
    if name in found:
        raise _refused(name, "is there twice", remote)
    mode, modified, link = header.mode & 0o777, _nanoseconds(header), ""
    if header.isdir():
        return Packed(name, tarfile.DIRTYPE, mode | 0o700, modified)
    if not name:
        raise _refused(header.name, "stands for the directory itself", remote)
    if header.issym():
        return Packed(name, tarfile.SYMTYPE, mode, modified, link=header.linkname)
    if header.islnk():
        link = posixpath.normpath(header.linkname)
        aim = found.get(link)
        if aim is None or aim.is_directory:
            raise _refused(name, f"is a hard link to {shown(header.linkname)!r}, outside of the target", remote)
        if aim.type == tarfile.SYMTYPE or aim.is_special:
            return Packed(name, aim.type, mode, modified, link=aim.link)
        return Packed(name, tarfile.LNKTYPE, mode, modified, link=aim.link or link)
    if header.isdev():
        return Packed(name, header.type, mode, modified)
    if not header.isreg() or header.issparse():
        raise _refused(name, "is of a type that is not known", remote)
    if header.size < 0:
        raise _refused(name, f"has the size {header.size}", remote)
    return Packed(name, tarfile.REGTYPE, mode, modified, header.size, header.offset_data)


def _nanoseconds(header: tarfile.TarInfo) -> int | None:
    """Return the date of an entry. The tarfile module has it as a float, which has no nanoseconds."""
    found = _SECONDS.fullmatch(header.pax_headers.get("mtime", str(int(header.mtime))))
    if found is None:
        return None
    sign, whole, fraction = found.groups(default="")
    return int(f"{sign}{whole}{fraction:<09.9}")


def _refused(name: str, why: str, remote: str) -> TransferError:
    return TransferError(
        f"{remote} has the entry {shown(name)!r}, which {why}; nothing was written.",
        hint="Remove it in the sandbox, or leave it out with exclude=[...].",
    )


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1] if name else []
    for depth in range(1, len(parts) + 1):
        yield "/".join(parts[:depth])


def write_entry(file: IO[bytes], entry: Packed, path: Path, linked: Path | None) -> None:
    """Write one entry of an archive to a new path.

    Args:
        file: The archive.
        entry: The entry.
        path: Nothing is there; its directory was made by this transfer.
        linked: What a hard link leads to.
    """
    if entry.is_directory:
        path.mkdir(0o700)
    elif entry.type == tarfile.SYMTYPE:
        path.symlink_to(entry.link)
        _set_date(path, entry)
    elif linked is not None:
        try:
            os.link(linked, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            with linked.open("rb") as content:
                _write(content, linked.stat().st_size, path)
            _set_attributes(path, entry)
    else:
        file.seek(entry.offset)
        _write(file, entry.size, path)
        _set_attributes(path, entry)


def finish_directory(path: Path, entry: Packed) -> None:
    """Give a new directory its mode and date, once all is in it."""
    _set_attributes(path, entry)


def _write(source: IO[bytes], size: int, path: Path) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as target:
        while size:
            piece = source.read(min(size, PIECE))
            if not piece:
                raise OSError(errno.EIO, "the archive ended early", str(path))
            target.write(piece)
            size -= len(piece)


def _set_attributes(path: Path, entry: Packed) -> None:
    path.chmod(entry.mode)
    _set_date(path, entry)


def _set_date(path: Path, entry: Packed) -> None:
    if entry.modified is None:
        return
    try:
        os.utime(path, ns=(entry.modified, entry.modified), follow_symlinks=False)
    except (OSError, OverflowError, ValueError):
        # A date that this file system does not have: the file is whole without it.
        return
