"""Files and directories between this machine and a sandbox: whole or not at all, and never outside of the target.

A file is written beside its destination and renamed. A directory travels as one tar archive, which keeps modes, links
and empty directories, is unpacked beside its destination and merged into it. What comes out of a sandbox is not
trusted: an archive with an entry that would end outside of the target, or with a device, is refused as a whole.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import shutil
import stat
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import AGSFlowsError, NotFoundError, TransferError
from ags_flows.models import Transfer

SLOWEST = 256 << 10
"""Bytes a second that a transfer is given at least, on top of a minute: a deadline, not an expectation."""

COMMAND_TIMEOUT = 600.0


def upload_file(plane: DataPlane, local: Path, remote: str, *, user: str | None = None) -> Transfer:
    """Copy a local file into a sandbox, with its mode. A `remote` that ends with `/` is a directory to put it in.

    Raises:
        TransferError: The file cannot be read, or did not arrive whole.
    """
    started = time.monotonic()
    size = _readable(local).st_size
    remote = _from_home(remote)
    target = posixpath.join(remote, local.name) if remote.endswith("/") else remote
    with _beside(plane, target, user) as temporary:
        with local.open("rb") as file:
            plane.write(temporary, file, user=user, timeout=_deadline(size))
        arrived = plane.stat(temporary, user=user).size
        if arrived != size:
            raise TransferError(
                f"{local} has {size:,} bytes, of which {arrived:,} arrived.", hint="It is retried whole."
            )
        mode = stat.S_IMODE(local.stat().st_mode) & 0o777
        _shell(plane, f"chmod {mode:o} {_q(temporary)}", f"upload {local}", user)
        _move(plane, temporary, target, user)
    return _told(str(local), target, 1, size, started)


def upload_directory(plane: DataPlane, local: Path, remote: str, *, user: str | None = None) -> Transfer:
    """Copy a local directory into a sandbox: what is in `local` is in `remote` afterwards, beside what was there.

    Raises:
        TransferError: It has something that is no file, directory or link, or did not arrive whole.
    """
    started = time.monotonic()
    if not local.is_dir():
        raise TransferError(f"{local} is not a directory.")
    target = _from_home(remote).rstrip("/") or "/"
    with tempfile.TemporaryFile(prefix="ags-flows-") as file:
        files, size = _pack(local, file)
        packed = file.tell()
        archive = f"/tmp/.ags_flows-{uuid.uuid4().hex}.tar"
        try:
            plane.write(archive, file, user=user, timeout=_deadline(packed))
            _shell(plane, _unpack_script(archive, target, packed), f"upload {local}", user)
        finally:
            _remove(plane, archive, user)
    return _told(str(local), target, files, size, started)


def download_file(plane: DataPlane, remote: str, local: Path, *, user: str | None = None) -> Transfer:
    """Copy a file of a sandbox to this machine. A `local` that is a directory gets the file in it.

    Raises:
        NotFoundError: There is no such file.
        TransferError: It is a directory, or did not arrive whole.
    """
    started = time.monotonic()
    remote = _from_home(remote)
    known = plane.stat(remote, user=user)
    if known.type == "dir":
        raise TransferError(f"{remote} is a directory.", hint="Use download_directory.")
    target = local / posixpath.basename(remote) if local.is_dir() else local
    size = _fetch(plane, remote, target, user)
    if known.type == "file" and size < known.size:
        target.unlink(missing_ok=True)
        raise TransferError(
            f"{remote} has {known.size:,} bytes, of which {size:,} arrived.", hint="It is retried whole."
        )
    if known.mode:
        target.chmod(known.mode & 0o777 | 0o600)
    return _told(remote, str(target), 1, size, started)


def download_directory(plane: DataPlane, remote: str, local: Path, *, user: str | None = None) -> Transfer:
    """Copy a directory of a sandbox to this machine: what is in `remote` is in `local` afterwards.

    Raises:
        NotFoundError: There is no such directory.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
    """
    started = time.monotonic()
    remote = _from_home(remote)
    if plane.stat(remote, user=user).type == "file":
        raise TransferError(f"{remote} is a file.", hint="Use download_file.")
    archive = f"/tmp/.ags_flows-{uuid.uuid4().hex}.tar"
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{local.name}-", dir=local.parent) as directory:
        packed, unpacked = Path(directory) / "archive.tar", Path(directory) / "content"
        try:
            _shell(plane, f"tar -C {_q(remote)} -cf {archive} .", f"download {remote}", user)
            _fetch(plane, archive, packed, user)
        finally:
            _remove(plane, archive, user)
        unpacked.mkdir()
        files, size = _unpack(packed, unpacked, remote)
        _merge(unpacked, local)
    return _told(remote, str(local), files, size, started)


def _fetch(plane: DataPlane, remote: str, target: Path, user: str | None) -> int:
    """Stream a remote file beside `target`, then put it in place; return its size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        size = 0
        with os.fdopen(descriptor, "wb") as file:
            for piece in plane.read_stream(remote, user=user):
                file.write(piece)
                size += len(piece)
        # mkstemp makes files that only their owner can read; the usual mode is what a user expects.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return size


def _pack(local: Path, file: object) -> tuple[int, int]:
    files = size = 0

    def check(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal files, size
        if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
            raise TransferError(f"{local / entry.name} is no file, directory or link.", hint="Leave it out.")
        files += not entry.isdir()
        size += entry.size
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            archive.add(str(local), arcname=".", filter=check)
    except OSError as error:
        raise TransferError(f"{local} cannot be read: {error}.") from error
    return files, size


def _unpack_script(archive: str, target: str, size: int) -> str:
    temporary = f"{target.rstrip('/')}.ags_flows-{uuid.uuid4().hex[:8]}"
    return "\n".join(
        [
            "set -e",
            f'[ "$(stat -c %s {archive})" = {size} ] || {{ echo "the archive did not arrive whole" >&2; exit 9; }}',
            f"A={archive} T={_q(target)} N={_q(temporary)}",
            'mkdir -p "$(dirname "$T")" "$N"',
            "trap 'rm -rf \"$N\"' EXIT",
            'tar -C "$N" --no-same-owner -xpf "$A"',
            # A directory of before is added to; a new one appears at once.
            'if [ -d "$T" ]; then cp -a "$N/." "$T/"; else mv -T "$N" "$T"; fi',
        ]
    )


def _unpack(archive: Path, target: Path, remote: str) -> tuple[int, int]:
    """Unpack what came out of a sandbox, after all of its entries were found harmless."""
    files = size = 0
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
    return files, size


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


def _merge(source: Path, target: Path) -> None:
    """Move what is in one directory into another: at once where there is none yet."""
    if not target.exists():
        os.replace(source, target)
        return
    if not target.is_dir() or target.is_symlink():
        raise TransferError(f"{target} is there already, and is not a directory.")
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and place.is_dir() and not place.is_symlink():
            _merge(entry, place)
            continue
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        os.replace(entry, place)


@contextmanager
def _beside(plane: DataPlane, target: str, user: str | None) -> Iterator[str]:
    """Give a temporary path in the directory of a target; what is left of it is removed."""
    directory, name = posixpath.split(target)
    temporary = posixpath.join(directory, f".{name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
    except BaseException:
        _remove(plane, temporary, user)
        raise


def _move(plane: DataPlane, source: str, target: str, user: str | None) -> None:
    if _attempt(lambda: plane.stat(target, user=user).type == "dir"):
        raise TransferError(f"{target} is a directory in the sandbox.", hint="End it with '/' to put the file in it.")
    plane.move(source, target, user=user)


def _attempt(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except NotFoundError:
        return False


def _shell(plane: DataPlane, script: str, what: str, user: str | None) -> None:
    result = plane.run(script, user=user, timeout=COMMAND_TIMEOUT)
    if not result.ok:
        told = (result.stderr or result.stdout).strip()[-500:]
        raise TransferError(f"{what}: the sandbox said (exit code {result.exit_code}): {told}")


def _remove(plane: DataPlane, path: str, user: str | None) -> None:
    """Remove a temporary file; one that stays does no harm, and the first error is the one to tell."""
    try:
        plane.remove(path, user=user)
    except AGSFlowsError:
        return


def _readable(local: Path) -> os.stat_result:
    try:
        status = local.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{local} is not a file.", hint="Use upload_directory for directories.")
        with local.open("rb"):
            return status
    except OSError as error:
        raise TransferError(f"{local} cannot be read: {error.strerror}.") from error


def _deadline(size: int) -> float:
    return 60.0 + size / SLOWEST


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it elsewhere than in /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def _from_home(remote: str) -> str:
    """Return a path without `~/`: a quoted tilde means nothing to a shell, and relative paths begin at the home."""
    return remote[2:] or "." if remote.startswith("~/") else remote


def _q(path: str) -> str:
    return shlex.quote(path)


def _told(source: str, destination: str, files: int, size: int, started: float) -> Transfer:
    return Transfer(source=source, destination=destination, files=files, size=size, seconds=time.monotonic() - started)
