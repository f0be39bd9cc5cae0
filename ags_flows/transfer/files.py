"""One file, up and down."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import time
from pathlib import Path

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import TransferError, UnreachableError
from ags_flows.models import Transfer
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.local_targets import must_be_replaceable
from ags_flows.transfer.packing import must_be_unchanged
from ags_flows.transfer.paths import argument, from_home, local_path, must_be_text, own_name, shown
from ags_flows.transfer.remote_scripts import (
    INCOMPLETE,
    IS_DIRECTORY,
    NOT_ALLOWED,
    NOTHING,
    discard,
    run_script,
    temporary_directory,
    words_of,
)
from ags_flows.transfer.stream import Outgoing, Progress, deadline, elapsed, fetch, hash_of, must_fit, temporary_file_in

# A link at the target is not followed: it is replaced, as a file is.
_MUST_BE_REPLACEABLE = f"""
[ ! -d "$T" ] || refuse {IS_DIRECTORY} "${{T#./}} is a directory in the sandbox"
D=${{T%/*}}; D=${{D:-/}}
find_parent "$T"
must_be_writable "$P"
mkdir -p -- "$D" || exit 1
must_be_replaceable "$D" "${{T##*/}}"
"""

# Print the checksum of the target if it has the size and the mode of the file.
_PREPARE = f"""
{_MUST_BE_REPLACEABLE}
if [ -f "$T" ] && [ ! -L "$T" ] && [ "$(stat -c '%a %s' -- "$T")" = "$MODE $SIZE" ]; then hash_of "$T"; fi
"""

_PUT_IN_PLACE = f"""
[ ! -d "$T" ] || refuse {IS_DIRECTORY} "${{T#./}} is a directory in the sandbox"
must_be_whole "$N"
chmod "$MODE" -- "$N" && mv -f -T -- "$N" "$T"
"""

# A file that is there keeps its mode.
_WRITE = f"""
{_MUST_BE_REPLACEABLE}
must_be_whole "$A"
N="$D/$OWN"
trap 'rm -f -- "$N"' EXIT
mv -f -T -- "$A" "$N" || exit 1
if [ -f "$T" ] && [ ! -L "$T" ]; then chmod -- "$(stat -c %a -- "$T")" "$N" || exit 1; fi
mv -f -T -- "$N" "$T"
"""

_LOOK = f"""
is_there "$T" || refuse {NOTHING} "${{T#./}} is not there"
[ ! -d "$T" ] || refuse {IS_DIRECTORY} "${{T#./}} is a directory"
[ -e "$T" ] || refuse {NOTHING} "${{T#./}} is a link that leads to nothing"
[ -f "$T" ] || refuse 1 "${{T#./}} is a device, a pipe or a socket"
[ -r "$T" ] || refuse {NOT_ALLOWED} "$(id -un) must not read ${{T#./}}"
stat -Lc '%s %a' -- "$T"
"""

# A file that only grows, such as a log, is whole up to what was read.
_COMPARE = f"""
command -v sha256sum >/dev/null || exit 0
[ "$(head -c "$SIZE" -- "$T" | sha256sum | cut -d' ' -f1)" = "$SHA" ] ||
  refuse {INCOMPLETE} "it did not arrive whole, or was changed while it was read ($SIZE bytes came)"
"""


def upload_file(
    plane: DataPlane, local: Path, remote: str, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a local file into a sandbox, with its mode. A `remote` that ends with `/` is a directory to put it in.

    A file that has this content and mode already is not sent again. A link at the target is replaced.

    Raises:
        TransferError: The file cannot be read, or its target is a directory or must not be written.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    started = time.monotonic()
    status = _readable(local_path(local))
    mode, size = _mode_of(status), status.st_size
    target = from_home(posixpath.join(remote, local.name) if remote.endswith("/") else remote)
    must_be_text(target)
    what = f"upload {shown(local)}"
    known = run_script(plane, _PREPARE, what, user, size, T=argument(target), MODE=mode, SIZE=str(size)).stdout.strip()
    if known and known == hash_of(local):
        return _moved(shown(local), target, size, started, unchanged=1)
    beside = posixpath.join(posixpath.dirname(target), own_name())
    try:
        with local_errors(local, "cannot be read"):
            file = local.open("rb")
        with file:
            before = os.fstat(file.fileno())
            size, mode = before.st_size, _mode_of(before)
            outgoing = Outgoing(file, size, progress)
            try:
                plane.write(beside, outgoing, user=user, timeout=deadline(size))
            except UnreachableError:
                # A file that became shorter also ends the request.
                must_be_unchanged(local, before, file, lambda: True)
                raise
            must_be_unchanged(local, before, file, lambda: hash_of(local, size) == outgoing.sha256)
        values = {"N": argument(beside), "T": argument(target), "SIZE": str(size), "SHA": outgoing.sha256}
        run_script(plane, _PUT_IN_PLACE, what, user, size, MODE=mode, **values)
    except BaseException:
        discard(plane, beside, user)
        raise
    return _moved(shown(local), target, size, started)


def write_file(plane: DataPlane, path: str, content: str | bytes, *, user: str | None = None) -> None:
    """Write text (as UTF-8) or bytes to a file in a sandbox, whole or not at all.

    A file that is there keeps its mode. A link is replaced.

    Raises:
        TransferError: The target is a directory or must not be written.
        TransferIncompleteError: The content did not arrive whole.
    """
    target = from_home(path)
    if path.endswith("/"):
        raise TransferError(f"{path} ends with '/'.", hint="Give the path of a file.")
    outgoing = Outgoing(io.BytesIO(data := content.encode() if isinstance(content, str) else content), len(data))
    with temporary_directory(plane, user) as directory:
        plane.write(f"{directory}/content", outgoing, user=user, timeout=deadline(len(data)))
        values = {"A": f"{directory}/content", "T": argument(target), "OWN": own_name(), "SHA": outgoing.sha256}
        run_script(plane, _WRITE, f"write {shown(path)}", user, len(data), SIZE=str(len(data)), **values)


def download_file(
    plane: DataPlane, remote: str, local: Path, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a file of a sandbox to this machine, with its mode. A `local` that is a directory gets the file in it.

    A link at the target is replaced.

    Raises:
        NotFoundError: There is no such file.
        TransferError: It is a directory, or `local` cannot be written.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    started = time.monotonic()
    path = from_home(remote)
    must_be_text(path)
    what = f"download {remote}"
    known, mode = words_of(run_script(plane, _LOOK, what, user, T=argument(path)), what, r"\d{1,18}", "[0-7]{1,5}")
    with local_errors(local, "cannot be written"):
        target = local / posixpath.basename(path) if local_path(local).is_dir() else local
        if target.is_dir() and not target.is_symlink():
            raise TransferError(f"{shown(target)} is a directory.", hint="Remove it, or give another path.")
        if target.exists() and not target.is_file():
            raise TransferError(f"{shown(target)} is a device, a pipe or a socket.", hint="Give another path.")
        must_be_replaceable(target)
        beside = temporary_file_in(target.parent)
    try:
        must_fit(target.parent, int(known), remote)
        with local_errors(target, "cannot be written"), beside.open("wb", buffering=0) as file:
            size, checksum = fetch(plane, path, file, user, int(known), progress=progress)
        # A file of /proc has no size and changes with each read.
        if int(known):
            run_script(plane, _COMPARE, what, user, size, T=argument(path), SIZE=str(size), SHA=checksum)
        with local_errors(target, "cannot be written"):
            beside.chmod(int(mode, 8) & 0o777)
            os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return _moved(remote, shown(target), size, started)


def read_file(plane: DataPlane, path: str, limit: int, *, user: str | None = None) -> bytes:
    """Return a file's content.

    Raises:
        NotFoundError: There is no such file.
        OutputTooLargeError: It has more than `limit` bytes.
    """
    return plane.read(from_home(path), user=user, limit=limit, timeout=deadline(limit))


def _moved(source: str, destination: str, size: int, started: float, unchanged: int = 0) -> Transfer:
    return Transfer(
        source=source, destination=destination, files=1, size=size, seconds=elapsed(started), unchanged=unchanged
    )


def _mode_of(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode) & 0o777:o}"


def _readable(local: Path) -> os.stat_result:
    with local_errors(local, "cannot be read"):
        status = local.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{shown(local)} is not a file.", hint="Use upload_directory for directories.")
        with local.open("rb"):
            return status
