"""What the commands of a sandbox have written so far, whether or not anybody follows them."""

from __future__ import annotations

import shlex
from typing import Any

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.operator.sandboxes import Writer
from ags_flows.run.redaction import Redactor

COLUMNS = ("started", "exit code", "bytes", "command")
LONGEST_FOLLOWED = 24 * 3600.0
CALL_TIMEOUT = 60.0

# One line a command: start, exit code or nothing, bytes of both streams, directory, first line of the command.
_LIST = """
for D in "$HOME"/.ags_flows/journal/*/ "/tmp/.ags_flows-$UID"/journal/*/; do
  [ -e "$D/cmd" ] || continue
  rc=; [ -s "$D/rc" ] && read -r rc _ <"$D/rc"
  size=$(cat "$D/out" "$D/err" 2>/dev/null | wc -c)
  printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "$(date -u -d "@$(stat -c %Y "$D/cmd")" +%FT%TZ)" "$rc" "$size" "${D%/}" \
    "$(grep -v '^exec <' "$D/cmd" | head -n 1 | head -c 200)"
done | sort
"""

_TAIL = """
cd {directory} || exit 9
[ -z "{follow}" ] || follow="--follow --pid=$(cut -d' ' -f1 pid)"
tail -q -n {lines} $follow err >&2 &
tail -q -n {lines} $follow out
wait
"""


def list_commands(instance: str, user: str | None = None) -> list[dict[str, Any]]:
    """Return the durable commands of a sandbox, the oldest first; those of `root` are root's."""
    told = _plane(instance).script(_LIST, user=user, timeout=CALL_TIMEOUT)
    names = ("started", "exit code", "bytes", "journal", "command")
    mask = Redactor().text
    return [dict(zip(names, map(mask, line.split("\t", 4)), strict=True)) for line in told.stdout.splitlines()]


def follow_command(
    instance: str, journal: str, lines: int, follow: bool, user: str | None, out: Writer, err: Writer
) -> None:
    """Write the end of a command's output, and with `follow` what comes until it ends."""
    script = _TAIL.format(directory=shlex.quote(journal), lines=lines, follow="yes" if follow else "")
    stdout, stderr = Redactor().stream(), Redactor().stream()
    try:
        _plane(instance).run(
            script,
            user=user,
            timeout=LONGEST_FOLLOWED if follow else CALL_TIMEOUT,
            on_stdout=lambda text: out(stdout.feed(text)),
            on_stderr=lambda text: err(stderr.feed(text)),
            profile=False,
        )
    finally:
        out(stdout.close())
        err(stderr.close())


def _plane(instance: str) -> DataPlane:
    return open_plane(AGSConfig().connection(), instance).plane
