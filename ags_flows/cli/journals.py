"""The durable commands of a sandbox and their output, whether or not a process follows them."""

from __future__ import annotations

import shlex
from datetime import datetime, timezone
from typing import Any

from ags_flows.blocks import AGSConfig
from ags_flows.cli.listing import Column, Writer
from ags_flows.cloud.data_planes import open_plane
from ags_flows.run.redaction import Redactor

COLUMNS = (
    Column("number", "no.", whole=True),
    Column("started_at", "started", text=lambda at: f"{at:%Y-%m-%d %H:%M:%S}Z", whole=True),
    Column("exit_code", "exit", whole=True),
    Column("bytes", whole=True),
    Column("command"),
)
LONGEST_FOLLOWED = 24 * 3600.0
CALL_TIMEOUT = 60.0

# One line for each command: its start in seconds, exit code or nothing, bytes of both streams, directory, first line.
_LIST = """
for D in {"$HOME/.ags_flows","/tmp/.ags_flows-$UID"}/"$AGS_FLOWS_SANDBOX"/journal/*/; do
  [ -e "$D/cmd" ] || continue
  rc=; [ -s "$D/rc" ] && read -r rc _ <"$D/rc"
  size=$(cat "$D/out" "$D/err" 2>/dev/null | wc -c)
  at=$(stat -c %.9Y "$D/cmd" 2>/dev/null || stat -c %Y "$D/cmd")
  printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "$at" "$rc" "$size" "${D%/}" \
    "$(head -n 1 "$D/cmd" | head -c 200)"
done | sort -n
"""

_TAIL = """
cd {directory} || exit 9
[ -z "{follow}" ] || follow="--follow --pid=$(cut -d' ' -f1 pid)"
tail -q -n {lines} $follow err >&2 &
tail -q -n {lines} $follow out
wait
"""


class Journals:
    """The durable commands of one sandbox.

    Args:
        config: Where AGS is.
        instance: The sandbox.
        user: Whose commands; those of `root` are root's.
    """

    def __init__(self, config: AGSConfig, instance: str, user: str | None = None) -> None:
        self._plane = open_plane(config.connection(), instance).plane
        self._user = user

    def commands(self) -> list[dict[str, Any]]:
        """Return the commands, the oldest first, with their exit codes (None: not ended) and the bytes of output."""
        listed = self._plane.script(_LIST, user=self._user, timeout=CALL_TIMEOUT).stdout.splitlines()
        return [_row(number, line) for number, line in enumerate(listed, 1)]

    def follow(self, journal: str, lines: int, follow: bool, out: Writer, err: Writer) -> None:
        """Write the end of a command's output, and with `follow` what comes until the command ends."""
        script = _TAIL.format(directory=shlex.quote(journal), lines=lines, follow="yes" if follow else "")
        stdout, stderr = Redactor().stream(), Redactor().stream()
        self._plane.run(
            script,
            user=self._user,
            timeout=LONGEST_FOLLOWED if follow else CALL_TIMEOUT,
            on_stdout=lambda text: out(stdout.feed(text)),
            on_stderr=lambda text: err(stderr.feed(text)),
            profile=False,
        )
        out(stdout.close())
        err(stderr.close())


def _row(number: int, line: str) -> dict[str, Any]:
    started, code, size, journal, command = line.split("\t", 4)
    return {
        "number": number,
        "started_at": datetime.fromtimestamp(float(started), timezone.utc),
        "exit_code": int(code) if code.isdecimal() else None,
        "bytes": int(size),
        "journal": journal,
        "command": Redactor().text(command),
    }
