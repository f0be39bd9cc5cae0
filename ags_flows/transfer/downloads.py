"""Directories of a sandbox, and files that match a pattern, to this machine: one archive each."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import TransferError, TransferIncompleteError
from ags_flows.models import Transfer
from ags_flows.transfer.archive import DIRECTORY_MODE, Packed, contents, finish_directory, write_entry
from ags_flows.transfer.exclusion import Exclude, Exclusion, Links
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.local_targets import LocalTargets
from ags_flows.transfer.paths import (
    OWN,
    argument,
    from_home,
    is_own,
    joined,
    local_path,
    own_name,
    shown,
    shown_names,
    split_pattern,
)
from ags_flows.transfer.placement import parents_of, place
from ags_flows.transfer.remote_scripts import (
    INCOMPLETE,
    IS_FILE,
    NOT_ALLOWED,
    NOTHING,
    read_list,
    run_script,
    temporary_directory,
    words_of,
)
from ags_flows.transfer.stream import Progress, elapsed, fetch, must_fit

_FAILED = f"""
failed() {{
  sed -n -e 's/^tar: Exiting with .*$//' -e '1,3{{/./p}}' "$W/errors" >&2
  # An entry was removed while the directory was read.
  if grep -q -e 'No such file' -e 'File shrank' "$W/errors"; then exit {INCOMPLETE}; fi
  grep -q 'Permission denied' "$W/errors" || exit 1
  exit {NOT_ALLOWED}
}}
"""

# FORMAT is what find prints of each entry.
_ENTER = f"""
needs tar find xargs sort grep sed
is_there "$T" || refuse {NOTHING} "there is no directory ${{T#./}} in the sandbox"
[ -d "$T" ] || refuse {IS_FILE} "${{T#./}} is a file"
enter "$T"
make_work
OF_KERNEL=-false
[ ! -r /proc/self/mountinfo ] || OF_KERNEL='( -fstype proc -o -fstype sysfs )'
export FORMAT OF_KERNEL
set -o pipefail
"""

# What has no content, or one that the kernel makes while it is read: then its size is not known before, and an archive
# has none of it. It is left out, and reported by its name.
_SPECIAL = r"\( -type b -o -type c -o -type p -o -type s -o -type f $OF_KERNEL \)"

_FIND = f"""
{_ENTER}
find . -name '{OWN}*' -prune -o {_SPECIAL} -print0 >"$W/special" 2>/dev/null
find . -name '{OWN}*' -prune -o ! {_SPECIAL} -printf "$FORMAT" >"$W/list" 2>"$W/errors" || failed
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
declare -A REAL SEEN ONCE
BASE=$(pwd -P) LINKED=()
# Set R to the path of a match without links to directories.
find_real() {{
  local D=${{1%/*}}
  if [ -z "${{REAL[$D]+x}}" ]; then
    cd -P -- "$D" || return 1
    REAL[$D]=${{PWD%/}}
    cd -- "$BASE" || exit 1
  fi
  R=${{REAL[$D]}}/${{1##*/}}
}}
# Whether a path, or a directory above it, was matched.
is_seen() {{
  local X=$1
  while [ "$X" != . ]; do
    [ -z "${{SEEN[$X]+x}}" ] || return 0
    X=${{X%/*}}
  done
  return 1
}}
for F in "${{FOUND[@]}}"; do
  # `**` also stands for no directory at all, and Bash before 5.2 returns `.` and `..` for `.*`.
  F=${{F%/}}
  case $F in . | */. | */..) continue ;; esac
  # What has no character of a pattern stays as it is, also if there is no such file.
  [ -e "$F" ] || [ -L "$F" ] || continue
  find_real "$F" || continue
  F=./${{F#./}}
  if [ "$R" = "${{BASE%/}}/${{F#./}}" ]; then SEEN[$F]=; printf '%s\\0' "$F"; else LINKED+=("$F"); fi
done >"$W/matching"
# A link that matches is fetched as a link.
for F in "${{LINKED[@]}}"; do
  is_seen "$F" || {{ SEEN[$F]=; printf '%s\\0' "$F"; }}
done >"$W/linked"
[ -s "$W/matching" ] || [ -s "$W/linked" ] || refuse {NOTHING} "nothing matches"
find_in() {{ xargs -0r bash -pc 'find "$@" -name "{OWN}*" -prune -o '"$1" bash | sort -zu; }}
# What is reached through links to directories as well is fetched once: the path without links comes first.
once() {{
  local E N=0
  [ -s "$W/linked" ] || {{ cat; return; }}
  case $FORMAT in %y*) N=1 ;; esac
  while IFS= read -r -d '' E; do
    find_real "${{E:N}}" && [ -z "${{ONCE[$R]+x}}" ] || continue
    ONCE[$R]=; printf '%s\\0' "$E"
  done
}}
cat "$W/matching" "$W/linked" | find_in '{_SPECIAL} -print0' >"$W/special" 2>/dev/null
find_content() {{ find_in '! {_SPECIAL} -printf "$FORMAT"' <"$1"; }}
{{ find_content "$W/matching" && find_content "$W/linked"; }} >"$W/found" 2>"$W/errors" || failed
once <"$W/found" >"$W/list"
"""

# GNU tar ends with 1 when a file was changed while it was read. One that only grows is whole up to the size that it
# had: what the archive has of it is compared with the file.
_PACK = """
if [ ! -s "$W/list" ]; then
  ! IFS= read -r -d '' F <"$W/special" || refuse NOTHING "${F#./} has no content, or the kernel makes it while read"
  refuse NOTHING "nothing is left of it"
fi
tar --format=posix --pax-option=delete=atime,delete=ctime --null --no-recursion --quoting-style=escape \
  -cf "$W/archive" -T "$W/list" 2>"$W/errors"
STATUS=$?
[ "$STATUS" -le 1 ] && ! grep -q 'File shrank' "$W/errors" || failed
if [ "$STATUS" = 1 ] && command -v sha256sum >/dev/null; then
  sed -n 's/^tar: \\(.*\\): file changed as we read it$/\\1/p' "$W/errors" |
    while IFS= read -r F; do printf '%b\\0' "$F"; done >"$W/changed"
  tar --null --no-recursion -xf "$W/archive" -T "$W/changed" \
    --to-command='[ "$(head -c "$TAR_SIZE" -- "$TAR_FILENAME" | sha256sum)" = "$(sha256sum)" ]' 2>>"$W/errors" ||
    { cat -- "$W/errors" >&2; exit INCOMPLETE; }
fi
H=$(hash_of "$W/archive")
stat -c %s -- "$W/special"; size_of "$W/archive"; echo "${H:--}"
""".replace("NOTHING", str(NOTHING)).replace("INCOMPLETE", str(INCOMPLETE))


def download_directory(
    plane: DataPlane,
    remote: str,
    local: Path,
    *,
    exclude: Exclude = (),
    links: Links = "keep",
    user: str | None = None,
    progress: Progress | None = None,
    exact: bool = False,
) -> Transfer:
    """Copy a directory of a sandbox to this machine: what is in `remote` is in `local` afterwards.

    Args:
        plane: The sandbox.
        remote: The directory in the sandbox.
        local: The directory on this machine.
        exclude: Patterns in the style of `.gitignore`, relative to `remote`.
        links: Whether links that lead outside of `remote` are kept, or skipped. Nothing is written through them.
        user: The user that reads it.
        progress: Called for each piece.
        exact: Whether `local` is never a link to the directory.

    Raises:
        NotFoundError: There is no such directory.
        TransferError: An entry would end outside of `local`; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    download = _Download(plane, remote, local_path(local), user, links, exact)
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
        TransferError: An entry would end outside of `local`; the message names it.
        TransferIncompleteError: It did not arrive whole.
    """
    base, rest = split_pattern(pattern)
    download = _Download(plane, pattern, local_path(local), user, links)
    return download.fetch(_FIND_MATCHING, Exclusion(exclude), progress, T=argument(base), P=f"./{rest}")


class _Download:
    """The download of one directory, or of what matches one pattern."""

    def __init__(
        self, plane: DataPlane, remote: str, local: Path, user: str | None, links: Links, exact: bool = False
    ) -> None:
        self._plane = plane
        self._remote = remote
        self._local = local
        self._user = user
        self._links = links
        self._exact = exact
        self._own = own_name()

    def fetch(self, find: str, exclusion: Exclusion, progress: Progress | None, **values: str) -> Transfer:
        started = time.monotonic()
        with local_errors(self._local, "cannot be written"):
            exists = self._exists()
        with temporary_directory(self._plane, self._user) as work:
            size, checksum, special = self._pack(find, exclusion, work, values)
            with local_errors(self._local, "cannot be written"):
                base = self._local if exists else self._local.parent
                base.mkdir(parents=True, exist_ok=True)
                # The content comes beside the archive.
                must_fit(base, 2 * size, self._remote)
                with tempfile.TemporaryFile(dir=base, prefix=f"{OWN}-", buffering=0) as file:
                    what = f"download {shown(self._remote)}"
                    got = fetch(self._plane, f"{work}/archive", file, self._user, size, what, progress)
                    if checksum and checksum != got:
                        raise TransferIncompleteError(
                            f"{shown(self._remote)} did not arrive whole.", hint="It is retried whole."
                        )
                    every = contents(file, shown(self._remote))
                    # A device that is mounted over a file looks like a file to find.
                    special += [entry.name for entry in every if entry.is_special]
                    # Names of this package are not packed: such entries are made up.
                    entries = [entry for entry in every if not (entry.is_special or is_own(entry.name))]
                    if any(entry.type == tarfile.LNKTYPE and is_own(entry.link) for entry in entries):
                        raise TransferError(f"{shown(self._remote)} has a hard link to a file that is left out.")
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
            left_out=shown_names(special),
        )

    def _exists(self) -> bool:
        """Return True if the target is there; refuse one that is not a directory."""
        if self._local.is_dir() and not (self._exact and self._local.is_symlink()):
            return True
        if os.path.lexists(self._local):
            raise TransferError(f"{shown(self._local)} is there already, and is not a directory.")
        return False

    def _pack(
        self, find: str, exclusion: Exclusion, work: str, values: Mapping[str, str]
    ) -> tuple[int, str, list[str]]:
        """Pack the directory in the sandbox.

        Returns:
            The size of the archive, its checksum if there is one, and the names of what has no content.
        """
        values, what = {**values, "W": work}, f"download {shown(self._remote)}"
        if exclusion.has_patterns:
            run_script(self._plane, f"{_FAILED}{find}", what, self._user, 1 << 30, FORMAT=r"%y%p\0", **values)
            names = _without(read_list(self._plane, f"{work}/list", self._user, what), exclusion)
            self._plane.write(f"{work}/list", joined(names), user=self._user)
            script = f'enter "$T"\n{_PACK}'
        else:
            script = f"{find}\n{_PACK}"
        result = run_script(self._plane, f"{_FAILED}{script}", what, self._user, 1 << 30, FORMAT=r"%p\0", **values)
        special, size, checksum = words_of(result, what, r"\d{1,18}", r"\d{1,18}", "-|[0-9a-f]{64}")
        names = read_list(self._plane, f"{work}/special", self._user, what) if int(special) else []
        known = [name.removeprefix("./") for name in names]
        return int(size), checksum.strip("-"), list(exclusion.remaining((name, False) for name in known))

    def _unpack(self, file: IO[bytes], entries: list[Packed], base: Path, prefix: str) -> None:
        """Write the entries to temporary directories, and rename them to their targets."""
        # A pattern has no entry for the target itself.
        if prefix and not (entries and entries[0].name == ""):
            entries = [Packed("", tarfile.DIRTYPE, DIRECTORY_MODE, None), *entries]
        if not prefix:
            entries = [entry for entry in entries if entry.name]

        def at(name: str) -> str:
            return f"{prefix}/{name}".strip("/")

        targets = LocalTargets(base)
        placed = place(
            [(at(entry.name), entry.is_directory) for entry in entries],
            lambda name, is_directory: targets.kind_of(base / name, is_directory),
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


def _without(listed: list[str], exclusion: Exclusion) -> list[str]:
    """Return the names of a listing, a letter for the type and a path each, that are not left out."""
    paths = {one[1:].removeprefix("./"): one[0] == "d" for one in listed}
    has_top = paths.pop(".", None) is not None
    kept = [f"./{name}" for name in exclusion.remaining(paths.items())]
    return [".", *kept] if has_top else kept
