"""Archives on this machine: packed from a directory, and unpacked only after all of their entries were checked."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ags_flows.errors import TransferError, TransferIncompleteError
from ags_flows.transfer.exclusion import Exclusion, Links
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.paths import leads_outside, shown

MOST_ENTRIES = 1_000_000
LARGEST_HEADER = 1 << 20
"""Bytes of one header of an archive: it is held in memory."""

PIECE = 1 << 20
DIRECTORY_MODE = 0o755
"""Of directories that an archive has no entry for."""


@dataclass(frozen=True)
class Local:
    """An entry of a local directory: its name relative to the directory, and its status (of a link itself)."""

    name: str
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def mode(self) -> int:
        """The permission bits that it gets in a sandbox."""
        return stat.S_IMODE(self.status.st_mode) & 0o777 | (0o700 if self.is_directory else 0)


@dataclass(frozen=True)
class Packed:
    """An entry of an archive.

    Attributes:
        name: Relative to the directory, as `a/b`; empty for the directory itself.
        type: The type of the tar format.
        mode: Permission bits.
        modified: Seconds since 1970, None where the archive has none.
        size: Bytes of content.
        offset: Where its content begins in the archive.
        link: What a link leads to.
    """

    name: str
    type: bytes
    mode: int
    modified: float | None
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


def scan(local: Path, exclusion: Exclusion, links: Links) -> tuple[list[Local], list[str]]:
    """Return the entries of a local directory that are transferred.

    Args:
        local: The directory.
        exclusion: What is left out.
        links: Whether links that lead outside of the directory are kept.

    Returns:
        The entries, a directory before what is in it; and the names of devices, pipes and sockets, which have no
        content.

    Raises:
        TransferError: It cannot be read.
    """
    found, special = [], []
    with local_errors(local, "cannot be read"):
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            with os.scandir(local / directory) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{directory}/{entry.name}" if directory else entry.name
                    one = Local(name, entry.stat(follow_symlinks=False))
                    if exclusion.covers(name, one.is_directory):
                        continue
                    if stat.S_ISLNK(one.status.st_mode):
                        if links == "skip" and leads_outside(name, os.readlink(entry.path)):
                            continue
                    elif not (one.is_directory or one.is_file):
                        special.append(name)
                        continue
                    found.append(one)
                    if one.is_directory:
                        waiting.append(name)
    return found, special


def pack(local: Path, entries: Iterable[Local], names: Mapping[str, str], file: IO[bytes]) -> None:
    """Write entries of a local directory to a tar archive.

    Args:
        local: The directory.
        entries: What is packed.
        names: The name of each entry in the archive.
        file: Open for writing.

    Raises:
        TransferError: An entry cannot be read.
        TransferIncompleteError: An entry was changed while it was read.
    """
    with (
        tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive,
        local_errors(local, "cannot be packed"),
    ):
        for entry in entries:
            header = tarfile.TarInfo(f"./{names[entry.name]}")
            header.mode, header.mtime = entry.mode, int(entry.status.st_mtime)
            path = os.path.join(local, entry.name)
            try:
                _add(archive, header, path, entry)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _changed(path) from error


def _add(archive: tarfile.TarFile, header: tarfile.TarInfo, path: str, entry: Local) -> None:
    if entry.is_directory:
        header.type = tarfile.DIRTYPE
        archive.addfile(header)
    elif not entry.is_file:
        header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(header)
    else:
        # NONBLOCK: what was a file may have become a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as content:
            before = os.fstat(content.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise _changed(path)
            header.size = before.st_size
            try:
                archive.addfile(header, content)
            except OSError as error:
                if error.errno is None:
                    # The tarfile module found less than the size.
                    raise _changed(path) from error
                raise
            must_be_unchanged(path, before, os.fstat(content.fileno()))


def must_be_unchanged(path: str | Path, before: os.stat_result, after: os.stat_result) -> None:
    """Refuse a file that was changed while it was read. One that only grows, such as a log, is whole up to its size.

    Raises:
        TransferIncompleteError: It was changed.
    """
    if after.st_size < before.st_size or (after.st_size == before.st_size and after.st_mtime_ns != before.st_mtime_ns):
        raise _changed(path)


def _changed(path: str | Path) -> TransferIncompleteError:
    return TransferIncompleteError(f"{shown(path)} was changed while it was read.", hint="It is retried whole.")


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
        A directory comes before what is in it; directories that the archive has no entry for are added.

    Raises:
        TransferError: An entry would be written outside of the target, or is of an unknown type.
    """
    found: dict[str, Packed] = {}
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            while (header := tar.next()) is not None:
                # The tarfile module keeps all headers otherwise.
                tar.members = []
                entry = _checked(header, found, remote)
                found[entry.name] = entry
                if len(found) > MOST_ENTRIES:
                    raise TransferError(
                        f"{remote} has more than {MOST_ENTRIES:,} entries.", hint="Pack it in the sandbox first."
                    )
                if entry.offset + entry.size > size:
                    raise TransferError(f"{remote} cannot be unpacked: an entry is longer than the archive.")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise TransferError(f"{remote} cannot be unpacked: {error}.") from error
    for name in list(found):
        for parent in _parents(name):
            above = found.setdefault(parent, Packed(parent, tarfile.DIRTYPE, DIRECTORY_MODE, None))
            if not above.is_directory:
                raise _refused(name, "would be written through a link or a file", remote)
    # By parts: "a/b" comes before "a-b", and so do directories before what is in them.
    return [found[name] for name in sorted(found, key=lambda name: name.split("/") if name else [])]


def _checked(header: tarfile.TarInfo, found: Mapping[str, Packed], remote: str) -> Packed:
    name = posixpath.normpath(header.name)
    if header.name.startswith("/") or name == ".." or name.startswith("../"):
        raise _refused(header.name, "would be written outside of the target", remote)
    if "\0" in name or "\0" in header.linkname:
        raise _refused(header.name, "has a zero byte", remote)
    name = "" if name == "." else name
    if name in found:
        raise _refused(name, "is there twice", remote)
    mode, modified, link = header.mode & 0o777, header.mtime, ""
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
    return Packed(name, tarfile.REGTYPE, mode, modified, header.size, header.offset_data)


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
    if entry.modified is None:
        return
    try:
        os.utime(path, (entry.modified, entry.modified))
    except (OSError, OverflowError, ValueError):
        # A date that this file system does not have: the file is whole without it.
        return
