"""One file, up and down."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import AGSFlowsError, OutputTooLargeError, TransferError, UnreachableError
from ags_flows.models import Transfer
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.local_targets import must_be_replaceable
from ags_flows.transfer.of_kernel import LARGEST_SIZE, MOST_CONTENT, readable
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

# An incomplete file is in N, a directory beside the target. Requests reach it by a link in W: once W is removed, no
# request that arrives late finds N, and what one creates that has found it before is removed with N.
_PLACES = """
D=${T%/*}; D=${D:-/}
N=$D/$OWN
"""

_MAKE_PLACES = f"""
{_PLACES}
case $N in /*) L=$N ;; *) L=$PWD/$N ;; esac
make_work
mkdir -m 700 -- "$N" && ln -s -- "$L" "$W/place" || exit 1
"""

# The second attempt is for what was created during the first. Print whether the user must not remove W.
_REMOVE_PLACES = f"""
{_PLACES}
rm -rf -- "$W"
rm -rf -- "$N" || rm -rf -- "$N" || exit 1
! is_there "$W" || echo "$W"
"""

# Print the checksum of the target if it has the size and the mode of the file; else make the places.
_PREPARE = f"""
{_MUST_BE_REPLACEABLE}
if [ -f "$T" ] && [ ! -L "$T" ] && [ "$(stat -c '%a %s' -- "$T")" = "$MODE $SIZE" ]; then
  H=$(hash_of "$T")
  [ -z "$H" ] || {{ echo "$H"; exit; }}
fi
{_MAKE_PLACES}
"""

_PUT_IN_PLACE = f"""
[ ! -d "$T" ] || refuse {IS_DIRECTORY} "${{T#./}} is a directory in the sandbox"
{_PLACES}
must_be_whole "$N/content"
chmod "$MODE" -- "$N/content" && mv -f -T -- "$N/content" "$T" || exit 1
{_REMOVE_PLACES}
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
read -r S B M <<<"$(stat -Lc '%s %b %a' -- "$T")"
K=-
# What the kernel makes while it is read, as in /proc and /sys, has no blocks, and another size than its content. It is
# kept in a file, whose size and checksum are certain.
N=$S
if [ "$B" = 0 ] && [ "$S" -le {LARGEST_SIZE} ]; then
  N=$(set -o pipefail; head -c "$((S + 1))" -- "$T" | wc -c) || exit 1
fi
if [ "$N" != "$S" ]; then
  trap 'rm -rf -- "$W"' EXIT
  make_work
  head -c {MOST_CONTENT + 1} -- "$T" >"$W/content" || exit 1
  S=$(size_of "$W/content")
  [ "$S" -le {MOST_CONTENT} ] || refuse 1 "${{T#./}} is made by the kernel, and has more than {MOST_CONTENT} bytes"
  K=+
  trap - EXIT
fi
echo "$S $M $K"
"""

# A file that only grows, such as a log, is whole up to the size that it had.
_COMPARE = f"""
command -v sha256sum >/dev/null || exit 0
[ "$(head -c "$SIZE" -- "$T" | sha256sum | cut -d' ' -f1)" = "$SHA" ] ||
  refuse {INCOMPLETE} "it did not arrive whole, or was changed while it was read"
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
    with readable(local_path(local)) as content:
        return _upload(plane, local, content, remote, user, progress)


def _upload(
    plane: DataPlane, local: Path, content: Path, remote: str, user: str | None, progress: Progress | None
) -> Transfer:
    """Copy the file `content` into a sandbox, by the name of `local`."""
    started = time.monotonic()
    status = content.stat()
    mode, size = _mode_of(status), status.st_size
    target = from_home(posixpath.join(remote, local.name) if remote.endswith("/") else remote)
    must_be_text(target)
    work = f"/tmp/{own_name()}"
    places = {"T": argument(target), "OWN": own_name(), "W": work}

    def run(script: str, **values: str) -> str:
        return run_script(plane, script, f"upload {shown(local)}", user, size, **places, **values).stdout.strip()

    def finish(script: str, **values: str) -> None:
        if run(script, **values):
            discard(plane, work, user)

    try:
        if known := run(_PREPARE, MODE=mode, SIZE=str(size)):
            if known == hash_of(content):
                return _moved(shown(local), target, size, started, unchanged=1)
            run(_MAKE_PLACES)
        with local_errors(local, "cannot be read"):
            file = content.open("rb")
        with file:
            before = os.fstat(file.fileno())
            size, mode = before.st_size, _mode_of(before)
            outgoing = Outgoing(file, size, progress)
            try:
                plane.write(f"{work}/place/content", outgoing, user=user, timeout=deadline(size))
            except UnreachableError:
                # A file that became shorter also ends the request.
                must_be_unchanged(local, before, file, lambda: True)
                raise
            must_be_unchanged(local, before, file, lambda: hash_of(content, size) == outgoing.sha256)
        finish(_PUT_IN_PLACE, MODE=mode, SIZE=str(size), SHA=outgoing.sha256)
    except BaseException:
        with suppress(AGSFlowsError):
            finish(_REMOVE_PLACES)
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
    plane: DataPlane,
    remote: str,
    local: Path,
    *,
    user: str | None = None,
    progress: Progress | None = None,
    exact: bool = False,
) -> Transfer:
    """Copy a file of a sandbox to this machine, with its mode. A link at the target is replaced.

    Args:
        plane: The sandbox.
        remote: The file in the sandbox.
        local: The file on this machine, or the directory that gets it.
        user: The user that reads it.
        progress: Called for each piece.
        exact: Whether `local` is never the directory that gets it, nor a link to one.

    Raises:
        NotFoundError: There is no such file.
        TransferError: It is a directory, or `local` cannot be written.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    started = time.monotonic()
    with _known(plane, remote, "download", user) as source:
        with local_errors(local, "cannot be written"):
            is_inside = local_path(local).is_dir() and not exact
            target = local / posixpath.basename(from_home(remote)) if is_inside else local
            if target.is_dir() and not target.is_symlink():
                raise TransferError(f"{shown(target)} is a directory.", hint="Remove it, or give another path.")
            if target.exists() and not target.is_file():
                raise TransferError(f"{shown(target)} is a device, a pipe or a socket.", hint="Give another path.")
            must_be_replaceable(target)
            beside = temporary_file_in(target.parent)
        try:
            must_fit(target.parent, source.size, remote)
            with local_errors(target, "cannot be written"), beside.open("wb", buffering=0) as file:
                source.fetch(file, progress)
            with local_errors(target, "cannot be written"):
                beside.chmod(source.mode)
                os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    return _moved(remote, shown(target), source.size, started)


def read_file(plane: DataPlane, path: str, limit: int, *, user: str | None = None) -> bytes:
    """Return a file's content.

    Raises:
        NotFoundError: There is no such file.
        OutputTooLargeError: It has more than `limit` bytes.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    with _known(plane, path, "read", user) as source:
        if source.size > limit:
            raise OutputTooLargeError(
                f"{path} has more than {limit:,} bytes.", hint="Download it, or read it with a higher limit=..."
            )
        content = io.BytesIO()
        source.fetch(content)
        return content.getvalue()


@dataclass(frozen=True)
class _Source:
    """A file of a sandbox whose size is known: no response is whole that has less.

    Attributes:
        plane: The sandbox.
        path: The file, or what is kept of one that the kernel makes.
        user: The user that reads it.
        what: What is being done, for messages.
        size: Its bytes when it was looked at.
        mode: Its permission bits.
    """

    plane: DataPlane
    path: str
    user: str | None
    what: str
    size: int
    mode: int

    def fetch(self, file: IO[bytes], progress: Progress | None = None) -> None:
        """Write its content to a local file, and compare it.

        Raises:
            TransferIncompleteError: It did not arrive whole, or was changed while it was read.
        """
        checksum = fetch(self.plane, self.path, file, self.user, self.size, self.what, progress)
        values = {"T": argument(self.path), "SIZE": str(self.size), "SHA": checksum}
        run_script(self.plane, _COMPARE, self.what, self.user, self.size, **values)


@contextmanager
def _known(plane: DataPlane, remote: str, verb: str, user: str | None) -> Iterator[_Source]:
    """Look at a file of a sandbox; what is kept of it there is removed afterwards."""
    path, what, work = from_home(remote), f"{verb} {shown(remote)}", f"/tmp/{own_name()}"
    must_be_text(path)
    looked = run_script(plane, _LOOK, what, user, T=argument(path), W=work)
    size, mode, kept = words_of(looked, what, r"\d{1,18}", "[0-7]{1,5}", "[-+]")
    is_kept = kept == "+"
    try:
        source = f"{work}/content" if is_kept else path
        yield _Source(plane, source, user, what, int(size), int(mode, 8) & 0o777)
    finally:
        if is_kept:
            discard(plane, work, user)


def _moved(source: str, destination: str, size: int, started: float, unchanged: int = 0) -> Transfer:
    return Transfer(
        source=source, destination=destination, files=1, size=size, seconds=elapsed(started), unchanged=unchanged
    )


def _mode_of(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode) & 0o777:o}"
