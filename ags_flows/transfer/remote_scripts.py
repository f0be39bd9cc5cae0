"""The sandbox's side of a transfer: short scripts whose exit codes are errors.

They run by a bash that reads no profile, in the user's home, with LC_ALL=C. Every name that they get begins with `/` or
`./`, so that no program takes it for an option.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import (
    AGSFlowsError,
    NotFoundError,
    OutputTooLargeError,
    TransferError,
    TransferIncompleteError,
    UnsupportedError,
)
from ags_flows.models import ExecResult
from ags_flows.transfer.archive import MOST_ENTRIES
from ags_flows.transfer.paths import own_name, quoted, split
from ags_flows.transfer.stream import deadline

IS_DIRECTORY = 21
INCOMPLETE = 22
NOTHING = 23
IS_FILE = 24
NO_PROGRAM = 25
IN_THE_WAY = 26
NOT_ALLOWED = 27
IS_MOUNTED = 28
NO_PLACE = 29

LARGEST_LIST = 256 << 20
"""Bytes of a list of names that are taken into memory."""

_OF_DIRECTORIES = {
    "download": "Use download_directory.",
    "read": "Give the path of a file in it.",
    "upload": "End it with '/' to put the file in it.",
    "write": "Give the path of a file in it.",
}

# The checksum of a file is nothing where the sandbox has no sha256sum: then its size has to do.
_FUNCTIONS = f"""
export LC_ALL=C
unset TAR_OPTIONS POSIXLY_CORRECT
umask 022
needs() {{
  local P
  for P; do command -v "$P" >/dev/null || {{ echo "the image has no $P" >&2; exit {NO_PROGRAM}; }}; done
}}
refuse() {{ echo "$2" >&2; exit "$1"; }}
enter() {{
  cd -- "$1" 2>/dev/null || refuse {NOT_ALLOWED} "$(id -un) must not enter the directory ${{1#./}}"
}}
# Make the temporary directory W, or use the one that envd has made where the user must not.
make_work() {{
  if [ -O "$W" ]; then chmod 700 -- "$W" || exit 1; return; fi
  [ -w "${{W%/*}}" ] || refuse {NO_PLACE} "$(id -un) must not write to ${{W%/*}}"
  mkdir -m 700 -- "$W" || exit 1
}}
size_of() {{ stat -Lc %s -- "$1"; }}
hash_of() {{ if command -v sha256sum >/dev/null; then sha256sum <"$1" | cut -d' ' -f1; fi; }}
must_be_whole() {{
  H=$(hash_of "$1")
  [ "$(size_of "$1")" = "$SIZE" ] && [ "${{H:-$SHA}}" = "$SHA" ] || refuse {INCOMPLETE} "it did not arrive whole"
}}
must_be_writable() {{
  [ -d "$1" ] || refuse 1 "${{1#./}} is not a directory"
  [ -w "$1" ] && [ -x "$1" ] || refuse {NOT_ALLOWED} "$(id -un) must not write to the directory $(readlink -f -- "$1")"
}}
# Whether there is something at a path; links are not followed.
is_there() {{ [ -e "$1" ] || [ -L "$1" ]; }}
# Refuse the names in the directory $1 that a rename cannot replace.
must_be_replaceable() {{
  local D=$1 N M REAL ME
  shift
  REAL=$(cd -P -- "$D" && pwd -P) && ME=$(id -u) || exit 1
  while read -r _ _ _ _ M _; do
    printf -v M "${{M//%/%%}}"
    [ "${{M%/*}}" = "${{REAL%/}}" ] && [ ! -d "$M" ] || continue
    for N; do [ "$N" != "${{M##*/}}" ] || refuse {IS_MOUNTED} "$M is a mount point, and cannot be replaced"; done
  done < <(cat /proc/self/mountinfo 2>/dev/null)
  [ -k "$D" ] && [ ! -O "$D" ] && [ "$ME" != 0 ] || return 0
  for N; do
    is_there "$D/$N" && [ "$(stat -c %u -- "$D/$N")" != "$ME" ] || continue
    refuse {IN_THE_WAY} "${{D#./}}/$N belongs to another user, in a directory with the sticky bit"
  done
}}
# Set P to the nearest directory above a path that is there.
find_parent() {{
  P=$1
  while :; do
    case $P in */*) P=${{P%/*}}; P=${{P:-/}} ;; *) P=. ;; esac
    ! is_there "$P" || return 0
  done
}}
"""


def run_script(plane: DataPlane, script: str, what: str, user: str | None, size: int = 0, **values: str) -> ExecResult:
    """Run a script in the sandbox.

    Args:
        plane: The sandbox.
        script: Gets `values` as variables. It runs again if it could not make the directory `W`.
        what: What is being done, for messages.
        user: The user that runs it.
        size: How many bytes it handles, for its deadline.
        **values: Variables.

    Raises:
        NotFoundError: A file or a directory is missing.
        TransferError: The script failed; the message has its error output.
        TransferIncompleteError: Another attempt may succeed.
        UnsupportedError: The image lacks a program.
    """
    variables = "\n".join(f"{name}={quoted(value)}" for name, value in values.items())
    text = f"{variables}\n{_FUNCTIONS}\n{script}"
    result = plane.script(text, user=user, timeout=deadline(size))
    if result.exit_code == NO_PLACE:
        plane.make_dir(values["W"], user=user)
        result = plane.script(text, user=user, timeout=deadline(size))
    if result.ok:
        return result
    text = f"{what}: {(result.stderr or result.stdout).strip()[-500:].rstrip('.')}."
    if result.exit_code == IS_DIRECTORY:
        raise TransferError(text, hint=_OF_DIRECTORIES[what.partition(" ")[0]])
    if result.exit_code == NOT_ALLOWED:
        more = "leave it out with exclude=[...]." if what.startswith("download") else "give another target."
        raise TransferError(text, hint=more.capitalize() if user == "root" else f'Use user="root", or {more}')
    if result.exit_code == IN_THE_WAY:
        raise TransferError(f"{text} Nothing was written.", hint='Give another target, or user="root".')
    if result.exit_code == IS_MOUNTED:
        raise TransferError(f"{text} Nothing was written.", hint="Give another target.")
    if result.exit_code == IS_FILE:
        raise TransferError(text, hint="Use download_file.")
    if result.exit_code == INCOMPLETE:
        raise TransferIncompleteError(text, hint="It is retried whole.")
    if result.exit_code == NOTHING:
        raise NotFoundError(text)
    if result.exit_code in (NO_PROGRAM, 127):
        raise UnsupportedError(text, hint="Transfers need bash, coreutils, findutils, grep, sed and GNU tar.")
    if result.exit_code == NO_PLACE:
        raise TransferError(text, hint="Transfers need a directory /tmp: create it, and chmod 1777 /tmp.")
    raise TransferError(f"{text} (Exit code {result.exit_code} in the sandbox.)")


def words_of(result: ExecResult, what: str, *rules: str) -> list[str]:
    """Return the words that a script has printed: a sandbox is not trusted.

    Args:
        result: Of `run_script`.
        what: What is being done, for messages.
        *rules: A regular expression for each word.

    Raises:
        TransferError: They are others.
    """
    words = result.stdout.split()
    if len(words) != len(rules) or not all(map(re.fullmatch, rules, words)):
        raise TransferError(f"{what}: the sandbox has sent an invalid response: {result.stdout[:200]!r}.")
    return words


def read_list(plane: DataPlane, path: str, user: str | None, what: str) -> list[str]:
    """Return the names of a list that a script has written, in bounded memory: a sandbox is not trusted.

    Args:
        plane: The sandbox.
        path: The list; its elements end with a zero byte.
        user: The user that reads it.
        what: What is being done, for messages.

    Raises:
        TransferError: It has too many names.
        TransferIncompleteError: It did not arrive whole.
    """
    refusal = TransferError(f"{what}: there are more than {MOST_ENTRIES:,} entries.", hint="Use an archive.")
    try:
        listing = plane.read(path, user=user, limit=LARGEST_LIST)
    except OutputTooLargeError:
        raise refusal from None
    if listing.count(0) > 2 * MOST_ENTRIES:
        raise refusal
    size, checksum = len(listing), hashlib.sha256(listing).hexdigest()
    run_script(plane, 'must_be_whole "$F"', what, user, size, F=path, SIZE=str(size), SHA=checksum)
    return split(listing)


@contextmanager
def temporary_directory(plane: DataPlane, user: str | None) -> Iterator[str]:
    """Yield a path in the sandbox's /tmp for temporary files; the first write creates it. Remove it afterwards."""
    path = f"/tmp/{own_name()}"
    try:
        yield path
    finally:
        discard(plane, path, user)


def discard(plane: DataPlane, path: str, user: str | None) -> None:
    """Remove a temporary path. If that fails, it stays, and an earlier error is not replaced."""
    with contextlib.suppress(AGSFlowsError):
        plane.remove(path, user=user)
