"""The shell scripts of durable commands. They need bash (as envd does), coreutils, and setsid where there is one.

A journal is a directory, made aside and renamed, so that it is there at once and whole: `sha` (of the command) and
`cmd`. Then come `claim` (a file that can be made once: whoever makes it may start the command, or declare that it never
was), `pid` and `child` (process id and start time), `out`, `err`, and at the very end `rc`: exit code, why it was
killed, if it was, and at how many bytes of output, if that was the reason.

Command and environment come in variables, not in the script: what is in a command line can be read by all users of a
sandbox, and `pkill -f` of a command would find its own supervisor. Variables of the scripts begin with `ags_`, since a
tool's environment may have any others. Builtins of the shell do what they can: each process costs a millisecond.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from ags_flows.errors import ConfigurationError

INLINE = 65_536
"""Output up to this size, in bytes of a stream, comes back with the answer of the start itself."""

LINGER = 0.3
"""Seconds that the start waits for the end of the command: short ones cost one exec in all."""

STALE = 15
"""Seconds after which a start that got no further than its directory counts as never made."""

GRACE = 5
"""Seconds between TERM and KILL."""

MARK = "@ags-journal"

LONGEST_VALUE = 100_000
"""Linux takes 128 KiB for one argument, or one variable of the environment."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Where the journal is, and whether a process whose id and start time are in a file is still the same one.
_PLACE = r"""
ags_root="$HOME/.ags_flows"
if ! { [ -d "$ags_root/journal" ] || mkdir -p -m 700 "$ags_root" "$ags_root/journal" 2>/dev/null; } ||
    [ ! -w "$ags_root/journal" ]; then
  ags_root="/tmp/.ags_flows-$UID"
  mkdir -p -m 700 "$ags_root" "$ags_root/journal"
  [ -O "$ags_root" ] || { echo "$ags_root belongs to another user" >&2; exit 9; }
fi
ags_d="$ags_root/journal/$ags_key"
"""

_ALIVE = r"""
ags_started() {
  local ags_l
  read -r ags_l 2>/dev/null <"/proc/$1/stat" || return 1
  set -- ${ags_l##*) }
  ags_t=${20}
}
ags_alive() {
  local ags_p ags_at
  read -r ags_p ags_at 2>/dev/null <"$1" && ags_started "$ags_p" && [ "$ags_t" = "$ags_at" ]
}
ags_sizes() { set -- $(stat -c %s "$ags_d/out" "$ags_d/err" 2>/dev/null); ags_o=${1:-0} ags_e=${2:-0}; }
"""

# What left the process group of the command (by a session of its own) still has its environment. $1: whom to spare.
_STRAYS = r"""
ags_strays() {
  local ags_p ags_i
  for ags_p in /proc/[0-9]*; do
    ags_i=${ags_p#/proc/}
    case " $$ $PPID $BASHPID $1 " in *" $ags_i "*) continue ;; esac
    if tr '\0' '\n' 2>/dev/null <"$ags_p/environ" | grep -qx "AGS_FLOWS_JOURNAL=$ags_key"; then echo "$ags_i"; fi
  done 2>/dev/null
}
"""

# The only process that starts the command, and the one beside it that enforces its limits.
_SUPERVISE = r"""
ags_watch() {
  local ags_begun=$SECONDS ags_next=1 ags_last=0 ags_why ags_pipe ags_free
  # To read from a pipe that nobody writes to is a pause that costs no process.
  { exec {ags_pipe}<> <(:); } 2>/dev/null || ags_pipe=
  while :; do
    if [ -n "$ags_pipe" ]; then read -r -t 1 -u "$ags_pipe"; else sleep 1; fi
    ags_why=
    if [ "$ags_time" -gt 0 ] && [ $((SECONDS - ags_begun)) -ge "$ags_time" ]; then ags_why=timeout; fi
    if [ $((SECONDS - ags_begun)) -ge "$ags_next" ]; then
      ags_sizes
      if [ -z "$ags_free" ]; then
        # A tenth of the disk stays free, whatever the limit: a full one would fail more than this command.
        set -- $(df -Pk "$ags_d" 2>/dev/null | tail -n 1)
        ags_free=$(( ags_o + ags_e + ${4:-99999999999} * 1024 / 10 * 9 ))
        [ "$ags_free" -ge "$ags_output" ] || ags_output=$ags_free
      fi
      if [ $((ags_o + ags_e)) -gt "$ags_output" ]; then ags_why="output $ags_output"; fi
      if [ $((ags_o + ags_e)) = "$ags_last" ]; then ags_next=2; else ags_next=1; fi
      ags_last=$((ags_o + ags_e)) ags_next=$((SECONDS - ags_begun + ags_next))
    fi
    if [ -n "$ags_why" ]; then
      echo "$ags_why" >"$ags_d/why"
      kill -s TERM -- "-$ags_child" 2>/dev/null
      sleep GRACE_SECONDS
      kill -s KILL -- "-$ags_child" 2>/dev/null
      exit
    fi
  done
}
ags_command() {
  for ags_v in ${!AGS_FLOWS_ENV_@}; do ags_s=${!ags_v}; unset "$ags_v"; eval "$ags_s"; done 2>/dev/null
  export AGS_FLOWS_JOURNAL="$ags_key"
  exec $ags_setsid "$BASH" -l "$ags_d/cmd"
}
ags_supervise() {
  # Without job control `setsid` need not fork, and is the command itself.
  set +m
  set -C; { : >"$ags_d/claim"; } 2>/dev/null || exit 1; set +C
  local ags_child ags_watcher ags_code ags_why ags_pid ags_me=$BASHPID ags_setsid=
  ags_started "$ags_me"; echo "$ags_me $ags_t" >"$ags_d/pid"
  # Where the disk is full at the end, the exit code takes the place of this.
  printf '%4096s' '' >"$ags_d/reserve"
  : >>"$ags_d/out"; : >>"$ags_d/err"
  if hash setsid 2>/dev/null; then
    ags_setsid=${BASH_CMDS[setsid]}
    ags_command >>"$ags_d/out" 2>>"$ags_d/err" </dev/null &
  else
    set -m; ags_command >>"$ags_d/out" 2>>"$ags_d/err" </dev/null & set +m
  fi
  ags_child=$!
  ags_started "$ags_child"; echo "$ags_child $ags_t" >"$ags_d/child"
  for ags_v in ${!AGS_FLOWS_ENV_@}; do unset "$ags_v"; done
  ags_watch &
  ags_watcher=$!
  wait "$ags_child" 2>/dev/null
  ags_code=$?
  kill "$ags_watcher" 2>/dev/null
  if [ -s "$ags_d/why" ]; then
    read -r ags_why <"$ags_d/why"
    kill -s KILL -- "-$ags_child" 2>/dev/null
    for ags_pid in $(ags_strays "$ags_me $ags_watcher"); do kill -s KILL "$ags_pid" 2>/dev/null; done
  fi
  : >"$ags_d/reserve"
  for ags_v in 1 2 3 4 5 6 7 8 9 10 11 12; do
    { echo "$ags_code $ags_why" >"$ags_d/rc"; } 2>/dev/null && break
    sleep 5
  done
}
"""

_TELL = r"""
ags_tell() {
  local ags_rc=
  ags_sizes
  [ -s "$ags_d/rc" ] && read -r ags_rc <"$ags_d/rc"
  printf '\n%s\n' "MARKER $1 $ags_o $ags_e $ags_d" "MARKER-rc $ags_rc"
  if [ -n "$ags_rc" ] && [ "$ags_o" -le INLINE_BYTES ] && [ "$ags_e" -le INLINE_BYTES ]; then
    [ "$ags_o" = 0 ] || echo "MARKER-out $(base64 <"$ags_d/out" | tr -d '\n')"
    [ "$ags_e" = 0 ] || echo "MARKER-err $(base64 <"$ags_d/err" | tr -d '\n')"
    echo "MARKER-whole"
  fi
  exit 0
}
"""

_START = r"""
ags_text=$AGS_FLOWS_COMMAND; unset AGS_FLOWS_COMMAND
for ags_attempt in 1 2 3; do
  if [ ! -d "$ags_d" ]; then
    ags_n="$ags_d.new.$$"
    mkdir "$ags_n" && INTO_CMD && echo "$ags_sha" >"$ags_n/sha" || { rm -rf "$ags_n"; exit 9; }
    # Renaming a directory fails when there is one with something in it: this is the lock.
    if mv -T "$ags_n" "$ags_d" 2>/dev/null; then
      # In a process group of its own: whoever ends this start with its group does not end the supervisor.
      set -m; ags_supervise </dev/null >/dev/null 2>&1 & set +m
      ags_supervisor=$!
      sleep LINGER_SECONDS </dev/null >/dev/null 2>&1 &
      wait -n "$ags_supervisor" $! 2>/dev/null
      ags_tell started
    fi
    rm -rf "$ags_n"
  fi
  read -r ags_known <"$ags_d/sha" && [ "$ags_known" != "$ags_sha" ] && ags_tell conflict
  if [ -e "$ags_d/claim" ]; then
    [ -s "$ags_d/rc" ] && ags_tell done
    for ags_look in 1 2 3 4 5 6 7 8 9 10; do [ -s "$ags_d/pid" ] && break; sleep 0.1; done
    ags_alive "$ags_d/pid" && ags_tell running
    sleep 0.2
    [ -s "$ags_d/rc" ] && ags_tell done
    ags_tell lost
  fi
  if [ $(( $(date +%s) - $(stat -c %Y "$ags_d") )) -lt STALE_SECONDS ]; then sleep 0.5; ags_tell starting; fi
  # Never started: whoever makes the claim keeps the supervisor of that start, if it still comes, from starting it.
  (set -C; : >"$ags_d/claim") 2>/dev/null && mv -T "$ags_d" "$ags_d.stale.$$"
done
ags_tell starting
"""

_LOOK = r"""
if [ -s "$ags_d/rc" ]; then ags_tell done; elif ags_alive "$ags_d/pid"; then ags_tell running; fi
sleep 0.3
[ -s "$ags_d/rc" ] && ags_tell done
ags_tell lost
"""

_KILL = r"""
[ -d "$ags_d" ] && [ ! -s "$ags_d/rc" ] || exit 0
if (set -C; : >"$ags_d/claim") 2>/dev/null; then
  # Before it was started: now it never will be.
  : >"$ags_d/out"; : >"$ags_d/err"; echo "143 cancelled" >"$ags_d/rc"; exit 0
fi
echo cancelled >"$ags_d/why"
for ags_look in 1 2 3 4 5 6 7 8 9 10; do { [ -s "$ags_d/child" ] || [ -s "$ags_d/rc" ]; } && break; sleep 0.1; done
read -r ags_supervisor _ 2>/dev/null <"$ags_d/pid"
read -r ags_child _ 2>/dev/null <"$ags_d/child"
[ -n "$ags_child" ] && kill -s TERM -- "-$ags_child" 2>/dev/null
for ags_look in 1 2 3 4 5 6 7 8 9 10; do [ -s "$ags_d/rc" ] && break; sleep 0.2; done
[ -n "$ags_child" ] && kill -s KILL -- "-$ags_child" 2>/dev/null
for ags_pid in $(ags_strays "$ags_supervisor"); do kill -s KILL "$ags_pid" 2>/dev/null; done
exit 0
"""


def start_script(key: str, sha: str, *, uploaded: bool, seconds: int, output: int) -> str:
    """Return the script that starts a command once, or says what became of it.

    Args:
        key: The journal's name.
        sha: Of the command.
        uploaded: Whether the command was uploaded to `upload_path(key)`; otherwise it comes in the environment.
        seconds: Time limit, 0 for none.
        output: The most bytes that the command may write to both streams together.
    """
    into = f'mv {upload_path(key)} "$ags_n/cmd"' if uploaded else 'printf %s "$ags_text" >"$ags_n/cmd"'
    values = {"ags_key": key, "ags_sha": sha, "ags_time": str(seconds), "ags_output": str(output)}
    return "\n".join(
        [
            *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
            _PLACE,
            _ALIVE,
            _STRAYS,
            _SUPERVISE.replace("GRACE_SECONDS", str(GRACE)),
            _tell(),
            _START.replace("LINGER_SECONDS", str(LINGER))
            .replace("STALE_SECONDS", str(STALE))
            .replace("INTO_CMD", into),
        ]
    )


def start_environment(command: str | None, env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the start script, which carries the command and the environment of the command.

    Args:
        command: The command, None when it was uploaded.
        env: The command's environment. It must not change what the script itself finds, such as `HOME` or `PATH`.

    Raises:
        ConfigurationError: A value is longer than Linux takes.
    """
    carried = {} if command is None else {"AGS_FLOWS_COMMAND": command}
    pieces = [""]
    for name, value in env.items():
        if len(value.encode()) > LONGEST_VALUE:
            raise ConfigurationError(
                f"env: {name} has {len(value.encode()):,} bytes, more than {LONGEST_VALUE:,}.",
                hint="Upload it as a file, or pass it as stdin.",
            )
        if not _NAME.fullmatch(name):
            # No shell can set it, and none is disturbed by it.
            carried[name] = value
            continue
        line = f"export {name}={shlex.quote(value)}\n"
        if len(pieces[-1]) + len(line) > LONGEST_VALUE:
            pieces.append("")
        pieces[-1] += line
    carried.update({f"AGS_FLOWS_ENV_{number}": piece for number, piece in enumerate(pieces) if piece})
    return carried


def look_script(key: str) -> str:
    """Return the script that says whether a command still runs."""
    return f"ags_key={key}\n{_PLACE}\n{_ALIVE}\n{_tell()}\n{_LOOK}"


def kill_script(key: str) -> str:
    """Return the script that kills a command's process group, and what left it but inherited its environment."""
    return f"ags_key={key}\n{_PLACE}\n{_STRAYS}\n{_KILL}"


def upload_path(key: str) -> str:
    """Return where a command is uploaded that is too long for the environment."""
    return f"/tmp/.ags_flows-cmd-{key}"


def input_path(key: str) -> str:
    """Return where the input of a command is uploaded."""
    return f"/tmp/.ags_flows-in-{key}"


def _tell() -> str:
    return _TELL.replace("MARKER", MARK).replace("INLINE_BYTES", str(INLINE))
