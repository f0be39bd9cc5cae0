"""The shell scripts of durable commands. They need bash (as envd does), coreutils, and setsid where there is one.

A journal is a directory, made aside and renamed, so that it is there at once and whole: `sha` (of the command) and
`cmd`. Then come `claim` (a file that can be made once: whoever makes it may start the command, or declare that it never
was), `pid` and `child` (process id and start time), `out`, `err`, and at the very end `rc`: exit code, and why it was
killed, if it was. Builtins of the shell do what they can: each process costs a millisecond.
"""

from __future__ import annotations

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

# Where the journal is ($D), and whether a process whose id and start time are in a file is still the same one.
_PLACE = r"""
umask 077
root="$HOME/.ags_flows/journal"
if ! { [ -d "$root" ] || mkdir -p "$root" 2>/dev/null; } || [ ! -w "$root" ]; then
  root=/tmp/.ags_flows-$UID/journal; mkdir -p "$root"
fi
D="$root/$KEY"
started_at() { local line; read -r line 2>/dev/null <"/proc/$1/stat" || return 1; set -- ${line##*) }; began=${20}; }
alive() { local pid at; read -r pid at 2>/dev/null <"$1" && started_at "$pid" && [ "$began" = "$at" ]; }
"""

# What left the process group of the command (by a session of its own) still has its environment. $1: whom to spare.
_STRAYS = r"""
strays() {
  local p pid
  for p in /proc/[0-9]*; do
    pid=${p#/proc/}
    case " $$ $PPID $BASHPID $1 " in *" $pid "*) continue ;; esac
    if tr '\0' '\n' 2>/dev/null <"$p/environ" | grep -qx "AGS_FLOWS_JOURNAL=$KEY"; then echo "$pid"; fi
  done 2>/dev/null
}
"""

# The only process that starts the command.
_SUPERVISE = r"""
supervise() {
  (set -C; : >"$D/claim") 2>/dev/null || exit 1
  local child watch code why me=$BASHPID
  started_at "$me"; echo "$me $began" >"$D/pid"
  : >>"$D/out"; : >>"$D/err"
  export AGS_FLOWS_JOURNAL="$KEY"
  if [ -n "$SETSID" ]; then
    setsid bash -l "$D/cmd" >>"$D/out" 2>>"$D/err" </dev/null &
  else
    set -m; bash -l "$D/cmd" >>"$D/out" 2>>"$D/err" </dev/null & set +m
  fi
  child=$!
  started_at "$child"; echo "$child $began" >"$D/child"
  (
    begun=$SECONDS
    while sleep 1; do
      why=
      if [ "$TIME" -gt 0 ] && [ $((SECONDS - begun)) -ge "$TIME" ]; then why=timeout; fi
      { read -r o; read -r e; } < <(stat -c %s "$D/out" "$D/err")
      if [ $((o + e)) -gt "$OUTPUT" ]; then why=output; fi
      if [ -n "$why" ]; then
        echo "$why" >"$D/why"
        kill -s TERM -- "-$child" 2>/dev/null
        sleep GRACE_SECONDS
        kill -s KILL -- "-$child" 2>/dev/null
        exit
      fi
    done
  ) &
  watch=$!
  wait "$child" 2>/dev/null
  code=$?
  kill "$watch" 2>/dev/null
  why=
  if [ -s "$D/why" ]; then
    read -r why <"$D/why"
    kill -s KILL -- "-$child" 2>/dev/null
    for pid in $(strays "$me $watch"); do kill -s KILL "$pid" 2>/dev/null; done
  fi
  echo "$code $why" >"$D/rc"
}
"""

_START = r"""
tell() {
  local o=0 e=0 rc=
  { read -r o; read -r e; } < <(stat -c %s "$D/out" "$D/err" 2>/dev/null)
  [ -s "$D/rc" ] && read -r rc <"$D/rc"
  echo "MARKER $1 $D ${o:-0} ${e:-0} $rc"
  if [ -n "$rc" ] && [ "$o" -le INLINE_BYTES ] && [ "$e" -le INLINE_BYTES ]; then
    [ "$o" = 0 ] || echo "MARKER-out $(base64 <"$D/out" | tr -d '\n')"
    [ "$e" = 0 ] || echo "MARKER-err $(base64 <"$D/err" | tr -d '\n')"
    echo "MARKER-whole"
  fi
  exit 0
}
if command -v setsid >/dev/null 2>&1; then SETSID=1; else SETSID=; fi
for attempt in 1 2 3; do
  if [ ! -d "$D" ]; then
    N="$D.new.$$"
    mkdir "$N" && INTO_CMD && echo "$SHA" >"$N/sha"
    # Renaming a directory fails when there is one with something in it: this is the lock.
    if mv -T "$N" "$D" 2>/dev/null; then
      supervise </dev/null >/dev/null 2>&1 &
      supervisor=$!
      sleep LINGER_SECONDS </dev/null >/dev/null 2>&1 &
      wait -n "$supervisor" $! 2>/dev/null
      tell started
    fi
    rm -rf "$N"
  fi
  read -r known <"$D/sha" && [ "$known" != "$SHA" ] && tell conflict
  if [ -e "$D/claim" ]; then
    [ -s "$D/rc" ] && tell done
    for look in 1 2 3 4 5 6 7 8 9 10; do [ -s "$D/pid" ] && break; sleep 0.1; done
    alive "$D/pid" && tell running
    sleep 0.2
    [ -s "$D/rc" ] && tell done
    tell lost
  fi
  if [ $(( $(date +%s) - $(stat -c %Y "$D") )) -lt STALE_SECONDS ]; then sleep 0.5; tell starting; fi
  # Never started: whoever makes the claim keeps the supervisor of that start, if it still comes, from starting it.
  (set -C; : >"$D/claim") 2>/dev/null && mv -T "$D" "$D.stale.$$"
done
tell starting
"""

_LOOK = r"""
rc=; state=lost
if [ -s "$D/rc" ]; then state=done; elif alive "$D/pid"; then state=running; else
  sleep 0.3; [ -s "$D/rc" ] && state=done
fi
[ -s "$D/rc" ] && read -r rc <"$D/rc"
{ read -r o; read -r e; } < <(stat -c %s "$D/out" "$D/err" 2>/dev/null)
echo "MARKER $state $D ${o:-0} ${e:-0} $rc"
"""

_KILL = r"""
[ -s "$D/rc" ] && exit 0
echo cancelled >"$D/why"
for look in 1 2 3 4 5 6 7 8 9 10; do { [ -s "$D/child" ] || [ -s "$D/rc" ]; } && break; sleep 0.1; done
read -r supervisor _ 2>/dev/null <"$D/pid"
read -r child _ 2>/dev/null <"$D/child"
[ -n "$child" ] && kill -s TERM -- "-$child" 2>/dev/null
for look in 1 2 3 4 5 6 7 8 9 10; do [ -s "$D/rc" ] && break; sleep 0.2; done
[ -n "$child" ] && kill -s KILL -- "-$child" 2>/dev/null
for pid in $(strays "$supervisor"); do kill -s KILL "$pid" 2>/dev/null; done
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
    into = f'mv {upload_path(key)} "$N/cmd"' if command is None else f'printf %s {shlex.quote(command)} >"$N/cmd"'
    values = {"KEY": key, "SHA": sha, "TIME": str(seconds), "OUTPUT": str(output)}
    return "\n".join(
        [
            *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
            _PLACE,
            _STRAYS,
            _SUPERVISE.replace("GRACE_SECONDS", str(GRACE)),
            _START.replace("MARKER", MARK)
            .replace("INLINE_BYTES", str(INLINE))
            .replace("LINGER_SECONDS", str(LINGER))
            .replace("STALE_SECONDS", str(STALE))
            # Last: a command that has one of these words stays as it is.
            .replace("INTO_CMD", into, 1),
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


def input_path(key: str) -> str:
    """Return where the input of a command is uploaded."""
    return f"/tmp/.ags_flows-in-{key}"
