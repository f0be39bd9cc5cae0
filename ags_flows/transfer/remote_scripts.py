"""The sandbox's side of a transfer: short scripts that say by their exit code what was wrong."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import AGSFlowsError, NotFoundError, TransferError, TransferIncompleteError
from ags_flows.models import ExecResult
from ags_flows.transfer.stream import deadline

IS_DIRECTORY = 21
INCOMPLETE = 22
NOTHING = 23

# The checksum of a file is nothing where the sandbox has no sha256sum: then its size has to do.
_FUNCTIONS = """
size_of() { stat -Lc %s "$1"; }
hash_of() { if command -v sha256sum >/dev/null; then sha256sum <"$1" | cut -d' ' -f1; fi; }
must_be_whole() {
  H=$(hash_of "$1")
  [ "$(size_of "$1")" = "$SIZE" ] && [ "${H:-$SHA}" = "$SHA" ] && return
  echo "it did not arrive whole" >&2
  exit INCOMPLETE
}
""".replace("INCOMPLETE", str(INCOMPLETE))


def run_script(plane: DataPlane, script: str, what: str, user: str | None, size: int = 0, **values: str) -> ExecResult:
    """Run a script in the sandbox.

    Args:
        plane: The sandbox.
        script: Gets `values` as variables.
        what: What is being done, for messages.
        user: Who runs it.
        size: How many bytes it handles, for its deadline.
        **values: Variables.

    Raises:
        TransferError: It failed; the message has what it said.
    """
    variables = "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
    result = plane.run(f"{variables}\n{_FUNCTIONS}\n{script}", user=user, timeout=deadline(size))
    if result.ok:
        return result
    told = (result.stderr or result.stdout).strip()[-500:]
    if result.exit_code == IS_DIRECTORY:
        raise TransferError(f"{what}: {told}", hint="End it with '/' to put the file in it.")
    if result.exit_code == INCOMPLETE:
        raise TransferIncompleteError(f"{what}: {told}", hint="It is retried whole.")
    if result.exit_code == NOTHING:
        raise NotFoundError(f"{what}: {told}")
    raise TransferError(f"{what}: the sandbox said (exit code {result.exit_code}): {told}")


@contextmanager
def temporary_archive(plane: DataPlane, user: str | None) -> Iterator[str]:
    """Give a path for an archive in the sandbox; it is removed afterwards."""
    path = f"/tmp/.ags_flows-{uuid.uuid4().hex}.tar"
    try:
        yield path
    finally:
        discard(plane, path, user)


def discard(plane: DataPlane, path: str, user: str | None) -> None:
    """Remove a temporary file; one that stays does no harm, and the first error is the one to tell."""
    try:
        plane.remove(path, user=user)
    except AGSFlowsError:
        return
