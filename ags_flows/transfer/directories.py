"""Directories, and files that match a pattern: one archive each."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import NotFoundError, TransferError, TransferIncompleteError
from ags_flows.models import Transfer
from ags_flows.transfer.archive import merge, pack, regular_files, unpack
from ags_flows.transfer.paths import from_home, split_pattern
from ags_flows.transfer.remote_scripts import NOTHING, run_script, temporary_archive
from ags_flows.transfer.stream import Outgoing, Progress, deadline, elapsed, fetch, hash_of

_UNPACK = """
set -e
must_be_whole "$A"
if [ -e "$T" ] && [ ! -d "$T" ]; then echo "$T is there already, and is not a directory" >&2; exit 1; fi
mkdir -p "$(dirname "$T")" "$N"
trap 'rm -rf "$N"' EXIT
tar -C "$N" --no-same-owner -xpf "$A"
# A directory of before is added to; a new one appears at once.
if [ -d "$T" ]; then cp -a "$N/." "$T/"; else mv -T "$N" "$T"; fi
"""

# Mode and checksum of files that are listed, of those that are there.
_LOOK = """
cd "$T" || exit 0
xargs -0 -r stat --printf '%a %n\\0' <"$LIST" >"$LIST.modes" 2>/dev/null
xargs -0 -r sha256sum -z <"$LIST" >"$LIST.hashes" 2>/dev/null
exit 0
"""

# GNU tar ends with 1 when a file was changed while it was read, which is for whoever wrote it to know.
_PACK = """
cd "$T" || exit 1
tar -cf "$A" . || [ $? = 1 ] || exit 2
size_of "$A"; hash_of "$A"
"""

_PACK_MATCHING = f"""
cd "$T" 2>/dev/null || {{ echo "$T is no directory in the sandbox" >&2; exit {NOTHING}; }}
shopt -s nullglob globstar
IFS=
F=($P)
unset IFS
[ "${{#F[@]}}" -gt 0 ] || {{ echo "nothing matches" >&2; exit {NOTHING}; }}
printf '%s\\0' "${{F[@]}}" | tar --null -T - -cf "$A" || [ $? = 1 ] || exit 2
size_of "$A"; hash_of "$A"
"""


def upload_directory(
    plane: DataPlane, local: Path, remote: str, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a local directory into a sandbox: what is in `local` is in `remote` afterwards, beside what was there.

    Files that have their content and mode there already are not sent again.

    Raises:
        TransferError: It has something that is no file, directory or link, or cannot be read.
        TransferIncompleteError: It did not arrive whole.
    """
    started = time.monotonic()
    if not local.is_dir():
        raise TransferError(f"{local} is not a directory.")
    target = from_home(remote).rstrip("/") or "/"
    unchanged = _unchanged(plane, local, target, user)
    with tempfile.TemporaryFile(prefix="ags-flows-") as file, temporary_archive(plane, user) as archive:
        files, size = pack(local, file, unchanged)
        outgoing = Outgoing(file, packed := file.tell(), progress)
        plane.write(archive, outgoing, user=user, timeout=deadline(packed))
        beside = f"{target.rstrip('/')}.ags_flows-{uuid.uuid4().hex[:8]}"
        values = {"A": archive, "T": target, "N": beside, "SIZE": str(packed), "SHA": outgoing.sha256}
        run_script(plane, _UNPACK, f"upload {local}", user, packed, **values)
    return Transfer(
        source=str(local),
        destination=target,
        files=files + len(unchanged),
        size=size + sum((local / name).stat().st_size for name in unchanged),
        seconds=elapsed(started),
        unchanged=len(unchanged),
    )


def download_directory(
    plane: DataPlane, remote: str, local: Path, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy a directory of a sandbox to this machine: what is in `remote` is in `local` afterwards.

    Raises:
        NotFoundError: There is no such directory.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    remote = from_home(remote)
    if plane.stat(remote, user=user).type == "file":
        raise TransferError(f"{remote} is a file.", hint="Use download_file.")
    return _download(plane, _PACK, remote, local, user, progress, T=remote)


def download_matching(
    plane: DataPlane, pattern: str, local: Path, *, user: str | None = None, progress: Progress | None = None
) -> Transfer:
    """Copy what matches a pattern of Bash to this machine, `**` for directories of any depth.

    Names in `local` begin where the pattern does: `out/*.csv` gives `local/a.csv`, `out/*/a.csv` gives `local/x/a.csv`.

    Raises:
        NotFoundError: Nothing matches.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    base, rest = split_pattern(pattern)
    return _download(plane, _PACK_MATCHING, pattern, local, user, progress, T=base, P=f"./{rest}")


def _download(
    plane: DataPlane,
    script: str,
    remote: str,
    local: Path,
    user: str | None,
    progress: Progress | None,
    **values: str,
) -> Transfer:
    started = time.monotonic()
    if local.exists() and not local.is_dir():
        raise TransferError(f"{local} is there already, and is not a directory.")
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{local.name}-", dir=local.parent) as directory:
        packed, unpacked = Path(directory) / "archive.tar", Path(directory) / "content"
        with temporary_archive(plane, user) as archive:
            told = run_script(plane, script, f"download {remote}", user, 1 << 30, A=archive, **values).stdout.split()
            arrived, checksum = fetch(plane, archive, packed, user, int(told[0]), progress)
        if arrived != int(told[0]) or told[1:] not in ([], [checksum]):
            raise TransferIncompleteError(f"{remote} did not arrive whole.", hint="It is retried.")
        unpacked.mkdir()
        files, size = unpack(packed, unpacked, remote)
        merge(unpacked, local)
    return Transfer(source=remote, destination=str(local), files=files, size=size, seconds=elapsed(started))


def _unchanged(plane: DataPlane, local: Path, target: str, user: str | None) -> Collection[str]:
    """Return the files that the sandbox has already, with this content and this mode."""
    names = regular_files(local)
    try:
        if not names or plane.stat(target, user=user).type != "dir":
            return ()
    except NotFoundError:
        return ()
    listed = f"/tmp/.ags_flows-{uuid.uuid4().hex}.list"
    size = sum((local / name).stat().st_size for name in names)
    try:
        plane.write(listed, b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names), user=user)
        run_script(plane, _LOOK, f"look at {target}", user, size, T=target, LIST=listed)
        modes = _by_name(plane.read(f"{listed}.modes", user=user), " ")
        hashes = _by_name(plane.read(f"{listed}.hashes", user=user), "  ")
    except NotFoundError:
        return ()
    finally:
        plane.run(f"rm -f {shlex.quote(listed)}*", user=user)
    return {name for name in names if _is_same(local / name, modes.get(name), hashes.get(name))}


def _by_name(listing: bytes, separator: str) -> dict[str, str]:
    """Return the values of a listing: a value, a separator, a name, a zero byte."""
    found = {}
    for line in listing.decode(errors="surrogateescape").split("\0"):
        value, _, name = line.partition(separator)
        if name:
            found[name] = value
    return found


def _is_same(file: Path, mode: str | None, checksum: str | None) -> bool:
    if mode is None or checksum is None:
        return False
    return f"{stat.S_IMODE(os.stat(file).st_mode):o}" == mode and hash_of(file) == checksum
