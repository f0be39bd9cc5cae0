"""What a local directory has, and an archive of it."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ags_flows.errors import TransferIncompleteError
from ags_flows.transfer.exclusion import Exclusion, Links
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.of_kernel import is_of_kernel
from ags_flows.transfer.paths import leads_outside, shown

PIECE = 1 << 20


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


def scan(local: Path, exclusion: Exclusion, links: Links) -> tuple[list[Local], list[str]]:
    """Return the entries of a local directory that are transferred.

    Args:
        local: The directory.
        exclusion: What is left out.
        links: Whether links that lead outside of the directory are kept.

    Returns:
        The entries, a directory before what is in it; and the names of devices, pipes, sockets, and files that the
        kernel makes while they are read.

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
                    elif not one.is_directory and (not one.is_file or is_of_kernel(entry.path, one.status)):
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
        file: Open for writing and reading.

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
            header.mode, header.mtime = entry.mode, entry.status.st_mtime_ns // 10**9
            if entry.status.st_mtime_ns % 10**9:
                archive.offset += file.write(_date(entry.status.st_mtime_ns))
            path = os.path.join(local, entry.name)
            try:
                _add(archive, header, path, entry, file)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _changed(path) from error
            # The tarfile module keeps all headers otherwise.
            archive.members = []  # type: ignore[attr-defined]


def _date(nanoseconds: int) -> bytes:
    """Return what an archive has before an entry for its date: the header of the entry itself has whole seconds."""
    sign, (seconds, fraction) = "-" * (nanoseconds < 0), divmod(abs(nanoseconds), 10**9)
    record = f" mtime={sign}{seconds}.{fraction:09}\n"
    header = tarfile.TarInfo("./PaxHeaders")
    # The size of a record counts its own two digits.
    header.type, header.size = tarfile.XHDTYPE, len(record) + 2
    return header.tobuf() + f"{header.size}{record}".encode().ljust(tarfile.BLOCKSIZE, b"\0")


def _add(archive: tarfile.TarFile, header: tarfile.TarInfo, path: str, entry: Local, file: IO[bytes]) -> None:
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
            must_be_unchanged(path, before, content, lambda: _ends_with(file, content, before.st_size))


def must_be_unchanged(
    path: str | Path, before: os.stat_result, file: IO[bytes], begins_as_read: Callable[[], bool]
) -> None:
    """Refuse a file that was changed while it was read. One that only grows, such as a log, is whole up to its size.

    Args:
        path: The file.
        before: Its status before it was read.
        file: The file, open for reading.
        begins_as_read: Whether it begins with what was read. Called only if it is longer than before.

    Raises:
        TransferIncompleteError: It was changed.
    """
    after = os.fstat(file.fileno())
    is_same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if not (is_same or (after.st_size > before.st_size and begins_as_read())):
        raise _changed(path)


def _ends_with(archive: IO[bytes], content: IO[bytes], size: int) -> bool:
    """Return True if the last entry of an archive has the first bytes of a file."""
    end = archive.seek(0, os.SEEK_END)
    archive.seek(end - size - -size % tarfile.BLOCKSIZE)
    content.seek(0)
    while size:
        piece = archive.read(min(size, PIECE))
        if not piece or content.read(len(piece)) != piece:
            break
        size -= len(piece)
    archive.seek(end)
    return not size


def _changed(path: str | Path) -> TransferIncompleteError:
    return TransferIncompleteError(f"{shown(path)} was changed while it was read.", hint="It is retried whole.")
