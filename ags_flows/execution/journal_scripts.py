"""The shell scripts of durable commands. They need bash (as envd does), coreutils, and setsid where there is one.

A journal is a directory: `sha` (of the command), `cmd`, `claim` (a directory: whoever makes it may start the command,
or declare it never started), `pid` and `child` (process id and its start time), `out`, `err`, and `rc`, which is
written last and atomically: exit code, and why it was killed, if it was.
"""

from __future__ import annotations

import base64
import shlex

INLINE = 65_536
"""Output up to this size, in bytes of a stream, comes back with the answer of the start itself."""

LINGER = 0.3
"""Seconds that the start waits for the end of the command: short ones cost one exec in all."""

STALE = 15
"""Seconds after which a start that got no further than its directory counts as never made."""

GRACE = 5
"""Seconds between TERM and KILL."""

MARK = "@ags-journal"

_PLACE = r"""
umask 077
for base in "$HOME" /tmp; do
  root="$base/.ags_flows/journal"
  if mkdir -p "$root" 2>/dev/null && [ -w "$root" ]; then break; fi
done
D="$root/$KEY"
started_at() { local line; read -r line <"/proc/$1/stat" 2>/dev/null || return 1; set -- ${line##*) }; echo "${20}"; }
alive() { local pid at; read -r pid at <"$1" 2>/dev/null && [ "$(started_at "$pid")" = "$at" ]; }
size() { stat -c %s "$1" 2>/dev/null || echo 0; }
"""

# What left the process group of the command (by a session of its own) still has its environment.
_STRAYS = r"""
strays() {
  local p pid
  for p in /proc/[0-9]*; do
    pid=${p#/proc/}
    case "$pid" in "$$" | "$PPID" | "$BASHPID" | "$1") continue ;; esac
    if tr '\0' '\n' 2>/dev/null <"$p/environ" | grep -qx "AGS_FLOWS_JOURNAL=$2"; then echo "$pid"; fi
  done 2>/dev/null
}
"""

# The supervisor: the only process that starts the command. $1 journal, $2 time limit, $3 limit of output in bytes.
_SUPERVISOR = r"""
W=$PWD
cd "$1" && mkdir claim 2>/dev/null || exit 1
started_at() { local line; read -r line <"/proc/$1/stat" 2>/dev/null || return 1; set -- ${line##*) }; echo "${20}"; }
echo "$$ $(started_at $$)" >pid.new && mv pid.new pid
: >>out; : >>err
if command -v setsid >/dev/null 2>&1; then
  (cd "$W" && exec setsid bash -l "$1/cmd") >>out 2>>err </dev/null &
else
  set -m; (cd "$W" && exec bash -l "$1/cmd") >>out 2>>err </dev/null & set +m
fi
child=$!
echo "$child $(started_at $child)" >child.new && mv child.new child
(
  begun=$SECONDS
  while sleep 1; do
    why=
    if [ "$2" -gt 0 ] && [ $((SECONDS - begun)) -ge "$2" ]; then why=timeout; fi
    if [ $(( $(stat -c %s out) + $(stat -c %s err) )) -gt "$3" ]; then why=output; fi
    if [ -n "$why" ]; then
      echo "$why" >why
      kill -s TERM -- "-$child" 2>/dev/null
      sleep GRACE_SECONDS
      kill -s KILL -- "-$child" 2>/dev/null
      exit
    fi
  done
) </dev/null >/dev/null 2>&1 &
watch=$!
wait "$child" 2>/dev/null
code=$?
kill "$watch" 2>/dev/null
if [ -s why ]; then
  kill -s KILL -- "-$child" 2>/dev/null
  for pid in $(strays "$watch" "$AGS_FLOWS_JOURNAL"); do kill -s KILL "$pid" 2>/dev/null; done
fi
echo "$code $(cat why 2>/dev/null)" >rc.new && mv rc.new rc
echo >&3
"""

_START = r"""
tell() {
  local state=$1 o e; o=$(size "$D/out"); e=$(size "$D/err")
  echo "MARKER $state $D $o $e $(cat "$D/rc" 2>/dev/null)"
  if [ -f "$D/rc" ] && [ "$o" -le INLINE_BYTES ] && [ "$e" -le INLINE_BYTES ]; then
    echo "MARKER-out $(base64 <"$D/out" | tr -d '\n')"
    echo "MARKER-err $(base64 <"$D/err" | tr -d '\n')"
  fi
  exit 0
}
for attempt in 1 2 3; do
  if mkdir "$D" 2>/dev/null; then
    COMMAND_INTO_CMD
    echo "$SHA" >"$D/sha.new" && mv "$D/sha.new" "$D/sha"
    mkfifo "$D/done"
    export AGS_FLOWS_JOURNAL="$KEY"
    # The descriptor for the end is opened for both directions: opening never blocks, whoever comes first.
    exec 3<>"$D/done"
    if command -v setsid >/dev/null 2>&1; then S=setsid; else S=; fi
    $S bash -c "$SUPERVISOR" ags-journal "$D" "$TIME" "$OUTPUT" </dev/null >/dev/null 2>&1 &
    read -r -t LINGER_SECONDS _ <&3
    tell started
  fi
  for look in 1 2 3 4 5 6 7 8 9 10; do [ -f "$D/sha" ] && break; sleep 0.1; done
  if [ -f "$D/sha" ] && [ "$(cat "$D/sha")" != "$SHA" ]; then tell conflict; fi
  if [ -d "$D/claim" ]; then
    [ -f "$D/rc" ] && tell done
    for look in 1 2 3 4 5 6 7 8 9 10; do [ -f "$D/pid" ] && break; sleep 0.1; done
    alive "$D/pid" && tell running
    sleep 0.2
    [ -f "$D/rc" ] && tell done
    tell lost
  fi
  if [ $(( $(date +%s) - $(stat -c %Y "$D") )) -lt STALE_SECONDS ]; then sleep 1; tell starting; fi
  # Never started: whoever makes the claim keeps the supervisor of that start, if it still comes, from starting it.
  mkdir "$D/claim" 2>/dev/null && mv "$D" "$D.stale.$$"
done
tell starting
"""

_LOOK = r"""
if [ -f "$D/rc" ]; then state=done; elif alive "$D/pid"; then state=running; else
  sleep 0.3; if [ -f "$D/rc" ]; then state=done; else state=lost; fi
fi
echo "MARKER $state $D $(size "$D/out") $(size "$D/err") $(cat "$D/rc" 2>/dev/null)"
"""

_KILL = r"""
echo cancelled >"$D/why"
read -r child _ <"$D/child" 2>/dev/null
read -r supervisor _ <"$D/pid" 2>/dev/null
[ -n "$child" ] && kill -s TERM -- "-$child" 2>/dev/null
for look in 1 2 3 4 5 6 7 8 9 10; do [ -f "$D/rc" ] && break; sleep 0.2; done
[ -n "$child" ] && kill -s KILL -- "-$child" 2>/dev/null
for pid in $(strays "$supervisor" "$KEY"); do kill -s KILL "$pid" 2>/dev/null; done
exit 0
"""


def start_script(key: str, sha: str, command: str | None, seconds: int, output: int) -> str:
    """Return the script that starts a command once, or says what became of it.

    Args:
        key: The journal's name.
        sha: Of the command.
        command: The command; None when it was uploaded to `upload_path(key)`.
        seconds: Time limit, 0 for none.
        output: The most bytes that the command may write to both streams together.
    """
    if command is None:
        into = f'mv {upload_path(key)} "$D/cmd"'
    else:
        encoded = base64.b64encode(command.encode()).decode()
        into = f'echo {encoded} | base64 -d >"$D/cmd"'
    values = {"KEY": key, "SHA": sha, "TIME": str(seconds), "OUTPUT": str(output)}
    supervisor = _STRAYS + _SUPERVISOR.replace("GRACE_SECONDS", str(GRACE))
    return "\n".join(
        [
            *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
            f"SUPERVISOR={shlex.quote(supervisor)}",
            _PLACE,
            _START.replace("COMMAND_INTO_CMD", into)
            .replace("MARKER", MARK)
            .replace("INLINE_BYTES", str(INLINE))
            .replace("LINGER_SECONDS", str(LINGER))
            .replace("STALE_SECONDS", str(STALE)),
        ]
    )


def look_script(key: str) -> str:
    """Return the script that says whether a command still runs."""
    return f"KEY={key}\n{_PLACE}\n{_LOOK.replace('MARKER', MARK)}"


def kill_script(key: str) -> str:
    """Return the script that kills a command's process group, and what left it but inherited its environment."""
    return f"KEY={key}\n{_PLACE}\n{_STRAYS}\n{_KILL}"


def upload_path(key: str) -> str:
    """Return where a command is uploaded that is too long for a script."""
    return f"/tmp/.ags_flows-cmd-{key}"
