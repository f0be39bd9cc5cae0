"""One file, up and down."""

from __future__ import annotations

import os
import posixpath
import stat
import time
import uuid
from pathlib import Path

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import NotFoundError, OutputTooLargeError, TransferError, TransferIncompleteError
from ags_flows.models import FileInfo, Transfer
from ags_flows.transfer.paths import from_home
from ags_flows.transfer.remote_scripts import IS_DIRECTORY, discard, run_script
from ags_flows.transfer.stream import Outgoing, Progress, deadline, elapsed, fetch, hash_of, place_beside

_PUT_IN_PLACE = f"""
[ ! -d "$T" ] || {{ echo "$T is a directory in the sandbox" >&2; exit {IS_DIRECTORY}; }}
must_be_whole "$N"
chmod "$MODE" "$N" && mv -f "$N" "$T"
"""


def upload_file(
    plane: DataPlane, local: Path, remote: str, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a local file into a sandbox, with its mode. A `remote` that ends with `/` is a directory to put it in.

    A file that has this content and mode already is not sent again.

    Raises:
        TransferError: The file cannot be read, or its target is a directory.
        TransferIncompleteError: It did not arrive whole.
    """
    started = time.monotonic()
    status = _readable(local)
    mode, size = stat.S_IMODE(status.st_mode) & 0o777, status.st_size
    remote = from_home(remote)
    target = posixpath.join(remote, local.name) if remote.endswith("/") else remote
    if _is_there(plane, target, local, mode, size, user):
        return Transfer(
            source=str(local), destination=target, files=1, size=size, seconds=elapsed(started), unchanged=1
        )
    beside = posixpath.join(posixpath.dirname(target), f".ags_flows-{uuid.uuid4().hex}")
    try:
        with local.open("rb") as file:
            outgoing = Outgoing(file, size, progress)
            plane.write(beside, outgoing, user=user, timeout=deadline(size))
        values = {"N": beside, "T": target, "SIZE": str(size), "SHA": outgoing.sha256, "MODE": f"{mode:o}"}
        run_script(plane, _PUT_IN_PLACE, f"upload {local}", user, size, **values)
    except BaseException:
        discard(plane, beside, user)
        raise
    return Transfer(source=str(local), destination=target, files=1, size=size, seconds=elapsed(started))


def download_file(
    plane: DataPlane, remote: str, local: Path, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a file of a sandbox to this machine. A `local` that is a directory gets the file in it.

    Raises:
        NotFoundError: There is no such file.
        TransferError: It is a directory.
        TransferIncompleteError: It did not arrive whole, or was changed meanwhile.
    """
    started = time.monotonic()
    remote = from_home(remote)
    known = plane.stat(remote, user=user)
    if known.type == "dir":
        raise TransferError(f"{remote} is a directory.", hint="Use download_directory.")
    target = local / posixpath.basename(remote) if local.is_dir() else local
    beside = place_beside(target)
    try:
        size, checksum = fetch(plane, remote, beside, user, known.size, progress)
        if known.size:
            _check(plane, remote, size, checksum, user)
        if known.mode:
            beside.chmod(known.mode & 0o777 | 0o600)
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return Transfer(source=remote, destination=str(target), files=1, size=size, seconds=elapsed(started))


def read_file(plane: DataPlane, path: str, limit: int, *, user: str | None = None) -> bytes:
    """Return a file's content.

    Raises:
        NotFoundError: There is no such file.
        OutputTooLargeError: It has more than `limit` bytes.
    """
    pieces, size = [], 0
    for piece in plane.read_stream(from_home(path), user=user):
        size += len(piece)
        if size > limit:
            raise OutputTooLargeError(
                f"{path} has more than {limit:,} bytes.", hint="Download it, or read it with a higher limit=..."
            )
        pieces.append(piece)
    return b"".join(pieces)


def _is_there(plane: DataPlane, target: str, local: Path, mode: int, size: int, user: str | None) -> bool:
    """Whether the target has this content and mode. The cheap questions come first."""
    try:
        known: FileInfo = plane.stat(target, user=user)
    except NotFoundError:
        return False
    if known.type != "file" or known.size != size or known.mode != mode:
        return False
    told = run_script(plane, 'hash_of "$T"', f"look at {target}", user, size, T=target)
    return told.stdout.strip() == hash_of(local)


def _check(plane: DataPlane, remote: str, size: int, checksum: str, user: str | None) -> None:
    """Compare with what is there. A file that only grows meanwhile, such as a log, is whole up to what was read."""
    script = """
    command -v sha256sum >/dev/null || exit 0
    [ "$(head -c "$SIZE" "$T" | sha256sum | cut -d' ' -f1)" = "$SHA" ] || echo differs
    """
    values = {"T": remote, "SIZE": str(size), "SHA": checksum}
    if run_script(plane, script, f"download {remote}", user, size, **values).stdout.strip():
        raise TransferIncompleteError(
            f"{remote} did not arrive whole, or was changed meanwhile ({size:,} bytes came).",
            hint="It is retried whole.",
        )


def _readable(local: Path) -> os.stat_result:
    try:
        status = local.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{local} is not a file.", hint="Use upload_directory for directories.")
        with local.open("rb"):
            return status
    except OSError as error:
        where = None if local.is_absolute() else f"Relative paths begin at {Path.cwd()}."
        raise TransferError(f"{local} cannot be read: {error.strerror}.", hint=where) from error
