"""Archives on this machine: packed from a directory, and unpacked only where that does no harm."""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

from ags_flows.errors import TransferError


def pack(local: Path, file: IO[bytes], leave_out: Collection[str] = ()) -> tuple[int, int]:
    """Write a directory as a tar archive; return how many files it has and their bytes.

    Args:
        local: The directory.
        file: Where to.
        leave_out: Files that are not packed, relative to the directory.

    Raises:
        TransferError: It cannot be read, or has something that is no file, directory or link.
    """
    files = size = 0

    def check(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal files, size
        name = posixpath.normpath(entry.name)
        if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
            raise TransferError(f"{local / name} is no file, directory or link.", hint="Leave it out.")
        if entry.islnk() and leave_out:
            # What it links to may be left out.
            entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", (local / name).stat().st_size
        if name in leave_out:
            return None
        files += not entry.isdir()
        size += entry.size
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(str(local), arcname=".", filter=check)
    except OSError as error:
        raise TransferError(f"{local} cannot be read: {error}.") from error
    return files, size


def regular_files(local: Path) -> list[str]:
    """Return the files of a directory, relative to it; links are none."""
    found = []
    for directory, _, names in os.walk(local):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                found.append(path.relative_to(local).as_posix())
    return found


def unpack(archive: Path, target: Path, remote: str) -> tuple[int, int]:
    """Unpack what came out of a sandbox, after all of its entries were found harmless.

    Returns:
        How many files there are, and their bytes.

    Raises:
        TransferError: An entry would end outside of the target, or is a device.
    """
    files = size = 0
    try:
        with tarfile.open(archive) as tar:
            entries = tar.getmembers()
            links = {posixpath.normpath(entry.name) for entry in entries if entry.issym()}
            for entry in entries:
                _check_entry(entry, links, remote)
                files += not entry.isdir()
                size += entry.size
            for entry in entries:
                entry.mode = entry.mode & 0o777 | (0o700 if entry.isdir() else 0o600)
                _extract(tar, entry, target)
    except (tarfile.TarError, OSError) as error:
        raise TransferError(f"{remote} cannot be unpacked: {error}.") from error
    return files, size


def merge(source: Path, target: Path) -> None:
    """Move what is in one directory into another: at once where there is none yet.

    Raises:
        TransferError: The target is no directory.
    """
    if not target.exists():
        os.replace(source, target)
        return
    if not target.is_dir() or target.is_symlink():
        raise TransferError(f"{target} is there already, and is not a directory.")
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and place.is_dir() and not place.is_symlink():
            merge(entry, place)
            continue
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        os.replace(entry, place)


def _check_entry(entry: tarfile.TarInfo, links: set[str], remote: str) -> None:
    def refuse(why: str) -> None:
        raise TransferError(
            f"{remote} has the entry {entry.name!r}, which {why}; nothing was written.",
            hint="Remove it in the sandbox, or download the files that you need one by one.",
        )

    name = posixpath.normpath(entry.name)
    if entry.name.startswith("/") or name == ".." or name.startswith("../"):
        refuse("would be written outside of the target")
    parents = name.split("/")[:-1]
    for depth in range(1, len(parents) + 1):
        if "/".join(parents[:depth]) in links:
            refuse("would be written through a link")
    if entry.issym():
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
        if entry.linkname.startswith("/") or aim == ".." or aim.startswith("../"):
            refuse(f"is a link to {entry.linkname!r}, outside of the target")
    elif entry.islnk():
        aim = posixpath.normpath(entry.linkname)
        if entry.linkname.startswith("/") or aim == ".." or aim.startswith("../") or aim in links:
            refuse(f"is a hard link to {entry.linkname!r}, outside of the target")
    elif not (entry.isfile() or entry.isdir()):
        refuse("is a device, a pipe or a socket")


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        tar.extract(entry, target, filter="data")
    else:
        # Python 3.10 and 3.11 before their last releases have no filters; the entries were checked above.
        tar.extract(entry, target, set_attrs=not entry.issym())
