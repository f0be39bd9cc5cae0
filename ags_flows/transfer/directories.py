"""Directories, and files that match a pattern: one archive each."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import ConfigurationError, TransferError, TransferIncompleteError
from ags_flows.models import Transfer
from ags_flows.transfer.archive import (
    DIRECTORY_MODE,
    Local,
    Packed,
    contents,
    finish_directory,
    pack,
    scan,
    write_entry,
)
from ags_flows.transfer.exclusion import Exclude, Exclusion
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.paths import OWN, argument, from_home, local_path, own_name, shown, split_pattern
from ags_flows.transfer.placement import Kind, parents_of, place
from ags_flows.transfer.remote_scripts import INCOMPLETE, IS_FILE, NOTHING, run_script, temporary_directory
from ags_flows.transfer.stream import Outgoing, Progress, deadline, elapsed, fetch, hash_of, must_fit

Links = Literal["keep", "skip"]

# Print whether the target is there.
_PREPARE = """
needs tar xargs
if [ -d "$T" ]; then echo directory; exit; fi
! is_there "$T" || refuse 1 "${T#./} is there already, and is not a directory"
find_parent "$T"
must_be_writable "$P"
"""

# Each script works with the files of one temporary directory, W.

# Status of what is listed, of those that are there. A name that ends with "/." stands for what a link leads to.
_LOOK = """
cd -- "$T" || exit 1
xargs -0 -r stat --printf '%f %s %n\\0' -- <"$W/list" >"$W/found" 2>/dev/null
exit 0
"""

# Checksums of files that may be unchanged, and whether the directories that get entries can be written to.
_CHECK = """
cd -- "$T" || exit 1
while IFS= read -r -d '' D; do must_be_writable "$D"; done <"$W/parents"
xargs -0 -r sha256sum -z -- <"$W/list" >"$W/found" 2>/dev/null
exit 0
"""

_UNPACK = f"""
must_be_whole "$W/archive"
mkdir -p -- "$T" && cd -- "$T" || exit 1
PARENTS=(.)
[ ! -e "$W/parents" ] || mapfile -d '' PARENTS <"$W/parents"
OWNS=("${{PARENTS[@]/%//$OWN}}")
each() {{ [ "$#" = 0 ] || printf '%s\\0' "$@"; }}
trap 'each "${{OWNS[@]}}" | xargs -0 -r rm -rf --' EXIT
each "${{OWNS[@]}}" | xargs -0 -r mkdir -m 700 -- || exit 1
tar --no-same-owner -xpf "$W/archive" || exit 1
rm -f -- "$W/archive"
shopt -s dotglob nullglob
for D in "${{PARENTS[@]}}"; do
  each "$D/$OWN/"* | xargs -0 -r mv -f -t "$D/" -- 2>"$W/errors" && continue
  cat -- "$W/errors" >&2
  # Another transfer was faster with a new directory: the next attempt adds to it.
  if grep -q -e 'not empty' -e 'File exists' "$W/errors"; then exit {INCOMPLETE}; fi
  exit 1
done
"""

_FAILED = f"""
failed() {{
  cat -- "$W/errors" >&2
  # An entry was removed while the directory was read.
  if grep -q -e 'No such file' -e 'File shrank' "$W/errors"; then exit {INCOMPLETE}; fi
  exit 1
}}
"""

# FORMAT is what find prints of each entry.
_ENTER = f"""
needs tar find xargs sort
is_there "$T" || refuse {NOTHING} "${{T#./}} is no directory in the sandbox"
[ -d "$T" ] || refuse {IS_FILE} "${{T#./}} is a file"
cd -- "$T" && mkdir -m 700 -- "$W" || exit 1
export FORMAT
set -o pipefail
"""

_FIND = f"""
{_ENTER}
find . -name '{OWN}*' -prune -o -printf "$FORMAT" >"$W/list" 2>"$W/errors" || failed
"""

# A directory and what is in it may both match: sort makes each entry one.
_FIND_MATCHING = f"""
{_ENTER}
shopt -s nullglob globstar
IFS=
# The characters of names are those of UTF-8.
{{ LC_ALL=C.UTF-8; }} 2>/dev/null
FOUND=($P)
LC_ALL=C
unset IFS
for F in "${{FOUND[@]}}"; do
  # `**` also stands for no directory at all, and Bash before 5.2 returns `.` and `..` for `.*`.
  case $F in */ | */. | */..) ;; *) printf '%s\\0' "$F" ;; esac
done >"$W/matching"
[ -s "$W/matching" ] || refuse {NOTHING} "nothing matches"
xargs -0 bash -pc 'find "$@" -name "{OWN}*" -prune -o -printf "$FORMAT"' bash <"$W/matching" 2>"$W/errors" |
  sort -zu >"$W/list" || failed
"""

# GNU tar ends with 1 when a file was changed while it was read. One that only grows is whole up to its size.
_PACK = """
[ -s "$W/list" ] || refuse NOTHING "nothing is left of it"
tar --format=gnu --null --no-recursion -cf "$W/archive" -T "$W/list" 2>"$W/errors"
[ "$?" -le 1 ] && ! grep -q 'File shrank' "$W/errors" || failed
size_of "$W/archive"; hash_of "$W/archive"
""".replace("NOTHING", str(NOTHING))


def upload_directory(
    plane: DataPlane,
    local: Path,
    remote: str,
    *,
    exclude: Exclude = (),
    user: str | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Copy a local directory into a sandbox: what is in `local` is in `remote` afterwards, beside what was there.

    Files that have their content and mode there already are not sent again.

    Args:
        plane: The sandbox.
        local: A directory, or a link to one.
        remote: The directory in the sandbox.
        exclude: Patterns in the style of `.gitignore`, relative to `local`.
        user: Who owns what is new.
        progress: Called for each piece.

    Raises:
        TransferError: It has something that is not a file, a directory or a link, it cannot be read, or what is in the
            sandbox must not be replaced.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    started = time.monotonic()
    with local_errors(local, "cannot be read"):
        if not local_path(local).is_dir():
            raise TransferError(f"{shown(local)} is not a directory.")
    entries = scan(local, Exclusion(exclude))
    upload = _Upload(plane, local, from_home(remote), user)
    with temporary_directory(plane, user) as work:
        unchanged = upload.send(entries, work, progress)
    files = [entry for entry in entries if not entry.is_directory]
    return Transfer(
        source=shown(local),
        destination=shown(upload.target),
        files=len(files),
        size=sum(entry.status.st_size for entry in files if entry.is_file),
        seconds=elapsed(started),
        unchanged=unchanged,
    )


class _Upload:
    """The upload of one directory."""

    def __init__(self, plane: DataPlane, local: Path, target: str, user: str | None) -> None:
        self.target = target
        self._plane = plane
        self._local = local
        self._user = user
        self._what = f"upload {shown(local)}"
        self._own = own_name()

    def send(self, entries: list[Local], work: str, progress: Progress | None) -> int:
        """Send what the sandbox has not; return how many files it has."""
        if self._run(_PREPARE, T=argument(self.target)).strip():
            base, names = self.target, {entry.name: entry.name for entry in entries}
            placed, unchanged = self._place(entries, work)
        else:
            # The new directory is an entry of the one above it.
            base, name = posixpath.split(self.target)
            with local_errors(self._local, "cannot be read"):
                entries = [Local("", self._local.stat()), *entries]
            names = {entry.name: f"{name}/{entry.name}".rstrip("/") for entry in entries}
            placed, unchanged = {entry.name: f"{self._own}/{names[entry.name]}" for entry in entries}, set()
        sent = [entry for entry in entries if entry.name in placed and entry.name not in unchanged]
        if sent:
            with tempfile.TemporaryFile(prefix="ags-flows-") as file:
                pack(self._local, sent, placed, file)
                outgoing = Outgoing(file, size := file.tell(), progress)
                self._plane.write(f"{work}/archive", outgoing, user=self._user, timeout=deadline(size))
            values = {"T": argument(base or "."), "OWN": self._own, "SIZE": str(size), "SHA": outgoing.sha256}
            self._run(_UNPACK, size, W=work, **values)
        return len(unchanged)

    def _place(self, entries: list[Local], work: str) -> tuple[dict[str, str], Collection[str]]:
        """Return where entries are written in a directory that exists, and which files are unchanged."""
        user, plane = self._user, self._plane
        listed = [f"./{entry.name}{end}" for entry in entries for end in (["", "/."] if entry.is_directory else [""])]
        plane.write(f"{work}/list", _joined(listed), user=user)
        self._run(_LOOK, T=argument(self.target), W=work)
        found = dict(_statuses(plane.read(f"{work}/found", user=user)))

        def kind_of(name: str, is_directory: bool) -> Kind:
            if is_directory and f"{name}/." in found:
                return "directory"
            if name not in found:
                return "missing"
            return "directory" if stat.S_ISDIR(found[name][0]) else "other"

        def refuse(name: str, is_directory: bool) -> TransferError:
            there, here = ("file", "directory") if is_directory else ("directory", "file")
            return TransferError(
                f"{self._what}: {shown(posixpath.join(self.target, name))} is there already, and is a {there}, not a "
                f"{here}; nothing was written.",
                hint="Remove it in the sandbox, or give another target.",
            )

        placed = place([(entry.name, entry.is_directory) for entry in entries], kind_of, refuse, self._own)
        same = [
            entry
            for entry in entries
            if entry.is_file and found.get(entry.name) == (stat.S_IFREG | entry.mode, entry.status.st_size)
        ]
        alike = {entry.name for entry in same}
        certain = parents_of((path for name, path in placed.items() if name not in alike), self._own)
        plane.write(f"{work}/list", _joined(f"./{entry.name}" for entry in same), user=user)
        plane.write(f"{work}/parents", _joined(argument(name) for name in certain), user=user)
        self._run(_CHECK, sum(entry.status.st_size for entry in same), T=argument(self.target), W=work)
        hashes = _hashes(plane.read(f"{work}/found", user=user))
        unchanged = {name for name in hashes if name in alike and hash_of(self._local / name) == hashes[name]}
        parents = parents_of((path for name, path in placed.items() if name not in unchanged), self._own)
        if parents != certain:
            plane.write(f"{work}/parents", _joined(argument(name) for name in parents), user=user)
        return placed, unchanged

    def _run(self, script: str, size: int = 0, **values: str) -> str:
        return run_script(self._plane, script, self._what, self._user, size, **values).stdout


def download_directory(
    plane: DataPlane,
    remote: str,
    local: Path,
    *,
    exclude: Exclude = (),
    links: Links = "keep",
    user: str | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Copy a directory of a sandbox to this machine: what is in `remote` is in `local` afterwards.

    Args:
        plane: The sandbox.
        remote: The directory in the sandbox.
        local: The directory on this machine.
        exclude: Patterns in the style of `.gitignore`, relative to `remote`.
        links: Whether links that lead outside of `remote` are kept, or skipped. Nothing is written through them.
        user: Who reads it.
        progress: Called for each piece.

    Raises:
        NotFoundError: There is no such directory.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    download = _Download(plane, remote, local_path(local), user, _check_links(links))
    return download.fetch(_FIND, Exclusion(exclude), progress, T=argument(from_home(remote)))


def download_matching(
    plane: DataPlane,
    pattern: str,
    local: Path,
    *,
    exclude: Exclude = (),
    links: Links = "keep",
    user: str | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Copy what matches a pattern of Bash to this machine, `**` for directories of any depth.

    Names in `local` begin where the pattern does: `out/*.csv` gives `local/a.csv`, `out/*/a.csv` gives `local/x/a.csv`.
    The other arguments are those of `download_directory`.

    Raises:
        NotFoundError: Nothing matches.
        TransferError: An entry would end outside of `local`, or is a device; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    base, rest = split_pattern(pattern)
    download = _Download(plane, pattern, local_path(local), user, _check_links(links))
    return download.fetch(_FIND_MATCHING, Exclusion(exclude), progress, T=argument(base), P=f"./{rest}")


class _Download:
    """The download of one directory, or of what matches one pattern."""

    def __init__(self, plane: DataPlane, remote: str, local: Path, user: str | None, links: Links) -> None:
        self._plane = plane
        self._remote = remote
        self._local = local
        self._user = user
        self._links = links
        self._own = own_name()

    def fetch(self, find: str, exclusion: Exclusion, progress: Progress | None, **values: str) -> Transfer:
        started = time.monotonic()
        with local_errors(self._local, "cannot be written"):
            exists = self._exists()
        with temporary_directory(self._plane, self._user) as work:
            size, checksum = self._pack(find, exclusion, work, values)
            with local_errors(self._local, "cannot be written"):
                base = self._local if exists else self._local.parent
                base.mkdir(parents=True, exist_ok=True)
                # The content comes beside the archive.
                must_fit(base, 2 * size, self._remote)
                with tempfile.TemporaryFile(dir=base, prefix=f"{OWN}-", buffering=0) as file:
                    arrived, got = fetch(
                        self._plane, f"{work}/archive", file, self._user, size, most=size, progress=progress
                    )
                    if arrived != size or (checksum and checksum != got):
                        raise TransferIncompleteError(
                            f"{shown(self._remote)} did not arrive whole.", hint="It is retried whole."
                        )
                    entries = contents(file, shown(self._remote))
                    if self._links == "skip":
                        entries = [entry for entry in entries if not entry.leads_outside]
                    self._unpack(file, entries, base, "" if exists else self._local.name)
        files = [entry for entry in entries if not entry.is_directory]
        return Transfer(
            source=shown(self._remote),
            destination=shown(self._local),
            files=len(files),
            size=sum(entry.size for entry in files),
            seconds=elapsed(started),
        )

    def _exists(self) -> bool:
        """Whether the target is there; refuse one that is not a directory."""
        if self._local.is_dir():
            return True
        if os.path.lexists(self._local):
            raise TransferError(f"{shown(self._local)} is there already, and is not a directory.")
        return False

    def _pack(self, find: str, exclusion: Exclusion, work: str, values: Mapping[str, str]) -> tuple[int, str]:
        """Pack the directory in the sandbox; return the size of the archive, and its checksum where there is one."""
        values, what = {**values, "W": work}, f"download {shown(self._remote)}"
        if exclusion.has_patterns:
            run_script(self._plane, f"{_FAILED}{find}", what, self._user, 1 << 30, FORMAT=r"%y%p\0", **values)
            listed = self._plane.read(f"{work}/list", user=self._user)
            names = _without(listed, exclusion)
            self._plane.write(f"{work}/list", _joined(names), user=self._user)
            script = f'cd -- "$T" || exit 1\n{_PACK}'
        else:
            script = f"{find}\n{_PACK}"
        result = run_script(self._plane, f"{_FAILED}{script}", what, self._user, 1 << 30, FORMAT=r"%p\0", **values)
        size, *checksum = result.stdout.split()
        return int(size), "".join(checksum)

    def _unpack(self, file: IO[bytes], entries: list[Packed], base: Path, prefix: str) -> None:
        """Write the entries to temporary directories, and rename them to their targets."""
        # A pattern has no entry for the target itself.
        if prefix and not (entries and entries[0].name == ""):
            entries = [Packed("", tarfile.DIRTYPE, DIRECTORY_MODE, None), *entries]
        if not prefix:
            entries = [entry for entry in entries if entry.name]

        def at(name: str) -> str:
            return f"{prefix}/{name}".strip("/")

        root = os.path.realpath(base)
        placed = place(
            [(at(entry.name), entry.is_directory) for entry in entries],
            lambda name, is_directory: _kind_of(base / name, is_directory, root),
            lambda name, is_directory: _in_the_way(base / name, is_directory),
            self._own,
        )
        with self._temporary_directories(base, placed) as parents:
            for entry in entries:
                if at(entry.name) in placed:
                    linked = base / placed[at(entry.link)] if entry.type == tarfile.LNKTYPE else None
                    write_entry(file, entry, base / placed[at(entry.name)], linked)
            for entry in reversed(entries):
                if entry.is_directory and at(entry.name) in placed:
                    finish_directory(base / placed[at(entry.name)], entry)
            for parent in parents:
                for name in sorted(os.listdir(base / parent / self._own)):
                    _rename(base / parent / self._own / name, base / parent / name)

    @contextmanager
    def _temporary_directories(self, base: Path, placed: Mapping[str, str]) -> Iterator[list[str]]:
        parents = parents_of(placed.values(), self._own)
        try:
            for parent in parents:
                (base / parent / self._own).mkdir(0o700)
            yield parents
        finally:
            for parent in parents:
                shutil.rmtree(base / parent / self._own, ignore_errors=True)


def _check_links(links: Links) -> Links:
    if links not in ("keep", "skip"):
        raise ConfigurationError(f"links must be 'keep' or 'skip', got {links!r}.")
    return links


def _kind_of(path: Path, is_directory: bool, root: str) -> Kind:
    """Return what stands at a local path. A link to a directory inside of the target stands for the directory."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return "missing"
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    if not (is_directory and stat.S_ISLNK(status.st_mode) and path.is_dir()):
        return "other"
    real = os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        # An earlier download may have made it: the sandbox could write anywhere by it.
        raise TransferError(
            f"{shown(path)} is a link to {shown(real)}, outside of the target; nothing was written.",
            hint="Remove the link, or download to the directory that it leads to.",
        )
    return "directory"


def _in_the_way(path: Path, is_directory: bool) -> TransferError:
    there, here = ("not a directory", "directory") if is_directory else ("a directory", "file")
    return TransferError(
        f"{shown(path)} is there already, and is {there}; in the sandbox it is a {here}. Nothing was written.",
        hint="Remove it, or give another target.",
    )


def _rename(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise TransferIncompleteError(
                f"{shown(target)} was created during the download.", hint="It is retried whole."
            ) from error
        raise TransferError(f"{shown(target)} cannot be replaced: {error.strerror}.") from error


def _without(listed: bytes, exclusion: Exclusion) -> list[str]:
    """Return the names of a listing, a letter for the type and a path each, that are not left out."""
    paths = {one[1:].removeprefix("./"): one[0] == "d" for one in _split(listed)}
    paths.pop(".", None)
    kept = [f"./{name}" for name in exclusion.remaining(paths.items())]
    return [".", *kept] if len(paths) < listed.count(b"\0") else kept


def _joined(names: Iterable[str]) -> bytes:
    return b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)


def _split(listing: bytes) -> list[str]:
    return [one for one in listing.decode(errors="surrogateescape").split("\0") if one]


def _statuses(listing: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Give name, and mode and size, of each file of a listing."""
    for one in _split(listing):
        mode, size, name = one.split(" ", 2)
        yield name.removeprefix("./"), (int(mode, 16), int(size))


def _hashes(listing: bytes) -> dict[str, str]:
    """Return the checksums of a listing by name."""
    return {name.removeprefix("./"): value for value, _, name in (one.partition("  ") for one in _split(listing))}
