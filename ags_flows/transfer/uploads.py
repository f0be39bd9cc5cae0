"""Directories into a sandbox: one archive each."""

from __future__ import annotations

import posixpath
import re
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import TransferError
from ags_flows.models import Transfer
from ags_flows.transfer.exclusion import Exclude, Exclusion, Links
from ags_flows.transfer.local_errors import local_errors
from ags_flows.transfer.packing import Local, pack, scan
from ags_flows.transfer.paths import argument, from_home, joined, local_path, own_name, shown, shown_names
from ags_flows.transfer.placement import Kind, parents_of, place
from ags_flows.transfer.remote_scripts import INCOMPLETE, read_list, run_script, temporary_directory
from ags_flows.transfer.stream import Outgoing, Progress, deadline, elapsed, hash_of

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
enter "$T"
xargs -0 -r stat --printf '%f %s %n\\0' -- <"$W/list" >"$W/found" 2>/dev/null
exit 0
"""

# Checksums of files that may be unchanged, and whether the directories that get entries can be written to.
_CHECK = """
enter "$T"
while IFS= read -r -d '' D; do must_be_writable "$D"; done <"$W/parents"
xargs -0 -r sha256sum -z -- <"$W/list" >"$W/found" 2>/dev/null
exit 0
"""

_UNPACK = f"""
must_be_whole "$W/archive"
mkdir -p -- "$T" && enter "$T" || exit 1
PARENTS=(.)
[ ! -e "$W/parents" ] || mapfile -d '' PARENTS <"$W/parents"
OWNS=("${{PARENTS[@]/%//$OWN}}")
each() {{ [ "$#" = 0 ] || printf '%s\\0' "$@"; }}
trap 'each "${{OWNS[@]}}" | xargs -0 -r rm -rf --' EXIT
each "${{OWNS[@]}}" | xargs -0 -r mkdir -m 700 -- || exit 1
tar --no-same-owner --delay-directory-restore -xpf "$W/archive" || exit 1
rm -f -- "$W/archive"
shopt -s dotglob nullglob
for D in "${{PARENTS[@]}}"; do
  NAMES=("$D/$OWN/"*)
  must_be_replaceable "$D" "${{NAMES[@]##*/}}"
done
for D in "${{PARENTS[@]}}"; do
  each "$D/$OWN/"* | xargs -0 -r mv -f -t "$D/" -- 2>"$W/errors" && continue
  cat -- "$W/errors" >&2
  # Another transfer was faster with a new directory: the next attempt adds to it.
  if grep -q -e 'not empty' -e 'File exists' "$W/errors"; then exit {INCOMPLETE}; fi
  exit 1
done
"""


_STATUS = re.compile(r"([0-9a-f]{1,8}) (\d{1,18}) (.*)", re.DOTALL)


def upload_directory(
    plane: DataPlane,
    local: Path,
    remote: str,
    *,
    exclude: Exclude = (),
    links: Links = "keep",
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
        links: Whether links that lead outside of `local` are kept, or skipped.
        user: The owner of new files.
        progress: Called for each piece.

    Raises:
        TransferError: It cannot be read, or what is in the sandbox must not be replaced.
        TransferIncompleteError: It did not arrive whole, or was changed while it was read.
    """
    started = time.monotonic()
    with local_errors(local, "cannot be read"):
        if not local_path(local).is_dir():
            raise TransferError(f"{shown(local)} is not a directory.")
    entries, special = scan(local, Exclusion(exclude), links)
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
        left_out=shown_names(special),
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
        """Send what the sandbox does not have. Return how many files it has already."""
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
        plane.write(f"{work}/list", joined(listed), user=user)
        self._run(_LOOK, T=argument(self.target), W=work)
        found = dict(_statuses(read_list(plane, f"{work}/found", user, self._what)))

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
        plane.write(f"{work}/list", joined(f"./{entry.name}" for entry in same), user=user)
        plane.write(f"{work}/parents", joined(argument(name) for name in certain), user=user)
        self._run(_CHECK, sum(entry.status.st_size for entry in same), T=argument(self.target), W=work)
        hashes = _hashes(read_list(plane, f"{work}/found", user, self._what))
        unchanged = {name for name in hashes if name in alike and hash_of(self._local / name) == hashes[name]}
        parents = parents_of((path for name, path in placed.items() if name not in unchanged), self._own)
        if parents != certain:
            plane.write(f"{work}/parents", joined(argument(name) for name in parents), user=user)
        return placed, unchanged

    def _run(self, script: str, size: int = 0, **values: str) -> str:
        return run_script(self._plane, script, self._what, self._user, size, **values).stdout


def _statuses(listing: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield name, and mode and size, of each file of a listing."""
    for one in listing:
        found = _STATUS.fullmatch(one)
        if found is None:
            raise TransferError(f"The sandbox has sent an invalid status of a file: {shown(one[:200])!r}.")
        mode, size, name = found.groups()
        yield name.removeprefix("./"), (int(mode, 16), int(size))


def _hashes(listing: list[str]) -> dict[str, str]:
    """Return the checksums of a listing by name."""
    return {name.removeprefix("./"): value for value, _, name in (one.partition("  ") for one in listing)}
