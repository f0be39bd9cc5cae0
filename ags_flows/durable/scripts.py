"""The shell scripts of durable commands. They need bash (as envd does) and coreutils, and use setsid if available.

A journal is a claimed directory (see `ags_flows.durable.claims`) with these files:

- `cmd`: the command, and `in`: its standard input, if any.
- `claim`: can be created only once. The process that creates it may start the command, or declare that it was never
  started.
- `pid` and `child`: process id and start time of the supervisor and of the command.
- `out` and `err`: the output.
- `rc`, written last: the exit code; if the command was killed, the reason; and for too much output, the limit in bytes.

Variables of the scripts begin with `ags_`, because a tool's environment may have any other names. The scripts prefer
shell builtins, because each process costs about a millisecond.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from ags_flows.durable.claim_scripts import HOLDER_FUNCTIONS, ROOT
from ags_flows.durable.claims import Request, assignments, claim_functions
from ags_flows.durable.environment import DIRECTORY, FROM_FILE, PROFILE
from ags_flows.durable.runners import hand_over_function
from ags_flows.ownership import Holder

JOURNALS = "journal"

INLINE = 65_536
"""Output up to this size, in bytes of a stream, is part of the response to the start."""

LINGER = 0.3
"""Seconds for which the start waits for the end of the command, so that short commands need only one exec."""

STALE = 15
"""Seconds after which a start that has only created its directory counts as never executed."""

GRACE = 5
"""Seconds between TERM and KILL."""

DRAIN_SECONDS = 5
"""Most seconds for which the end of a command waits for processes that copy its output."""

PAUSE = 5
"""If more seconds pass between two checks of the supervisor, normally one second apart, the sandbox was paused."""

MARK = "@ags-journal"

# ags_alive FILE: whether the process whose id and start time are in the file still runs.
ALIVE = r"""
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
ags_sizes() {
  ags_o=0 ags_e=0
  [ -s "$ags_d/out" ] || [ -s "$ags_d/err" ] || return 0
  set -- $(exec stat -c %s "$ags_d/out" "$ags_d/err" 2>/dev/null); ags_o=${1:-0} ags_e=${2:-0}
}
"""

# Processes that left the command's process group (with setsid) still have its environment. $1: process ids to exclude.
STRAYS = r"""
ags_strays() {
  local ags_p ags_i
  for ags_p in /proc/[0-9]*; do
    ags_i=${ags_p#/proc/}
    case " $$ $PPID $BASHPID $1 " in *" $ags_i "*) continue ;; esac
    if tr '\0' '\n' 2>/dev/null <"$ags_p/environ" | grep -qx "AGS_FLOWS_JOURNAL=$ags_name"; then echo "$ags_i"; fi
  done 2>/dev/null
}
"""

# ags_drain PGID: wait for processes to which the command has redirected its output, as by `exec > >(tee log)`. They end
# soon after it. Their stdin is a pipe; just after their start, the pipe may still be another file descriptor.
DRAIN = r"""
ags_copies() {
  local ags_p ags_f ags_l
  for ags_p in /proc/[0-9]*; do
    for ags_f in "$ags_p/fd/"$2; do
      [ -p "$ags_f" ] && read -r ags_l 2>/dev/null <"$ags_p/stat" || continue
      ags_l=${ags_l##*) }; ags_l=${ags_l#* * }
      [ "${ags_l%% *}" != "$1" ] || return 0
      break
    done
  done
  return 1
}
ags_drain() {
  local ags_n=0
  while kill -0 -- "-$1" 2>/dev/null && [ "$ags_n" -lt DRAIN_LOOKS ]; do
    if [ "$ags_n" -lt 10 ]; then ags_copies "$1" "*"; else ags_copies "$1" 0; fi || return
    sleep 0.02; ags_n=$((ags_n + 1))
  done
}
""".replace("DRAIN_LOOKS", str(DRAIN_SECONDS * 50))

# ags_supervise starts the command; ags_watch enforces its limits in a second process.
_SUPERVISE = r"""
ags_clock() {
  # Milliseconds. Bash before 5.0 has whole seconds alone.
  if [ -n "$EPOCHREALTIME" ]; then ags_now=${EPOCHREALTIME/[.,]/}; ags_now=${ags_now%???}
  else ags_now=$((SECONDS * 1000)); fi
}
ags_watch() {
  local ags_begun=$SECONDS ags_next=1 ags_last=0 ags_why ags_pipe ags_free ags_spent=0 ags_before ags_now ags_pause
  ags_clock; ags_before=$ags_now
  # Reading with a timeout from a pipe without a writer is a pause that needs no process.
  { exec {ags_pipe}<> <(:); } 2>/dev/null || ags_pipe=
  while :; do
    ags_pause=1
    if [ "$ags_time" -gt 0 ] && [ $((ags_time - ags_spent)) -lt 1000 ]; then
      printf -v ags_pause '0.%03d' $((ags_time > ags_spent ? ags_time - ags_spent : 1))
    fi
    if [ -n "$ags_pipe" ]; then read -r -t "$ags_pause" -u "$ags_pipe"; else sleep "$ags_pause"; fi
    ags_why=
    # A long interval means that the sandbox was paused. The time limit counts it as one second.
    ags_clock
    if [ $((ags_now - ags_before)) -gt PAUSE_SECONDS000 ]; then ags_spent=$((ags_spent + 1000))
    else ags_spent=$((ags_spent + ags_now - ags_before)); fi
    ags_before=$ags_now
    if [ "$ags_time" -gt 0 ] && [ "$ags_spent" -ge "$ags_time" ]; then ags_why="timeout $ags_limit"; fi
    if [ $((SECONDS - ags_begun)) -ge "$ags_next" ]; then
      ags_sizes
      if [ -z "$ags_free" ]; then
        # A tenth of the disk is always kept free: a full disk would break more than this command.
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
  export AGS_FLOWS_JOURNAL="$ags_name"
  local ags_in=/dev/null
  [ -z "$ags_input" ] || ags_in=$ags_d/in
  export AGS_FLOWS_FILE="$ags_d/cmd" AGS_FLOWS_INPUT="$ags_in"
  exec $ags_setsid "$BASH" -l -c PROLOGUE
}
ags_supervise() {
  # Without job control setsid does not fork, so that its process id is that of the command.
  set +m
  set -C; { : >"$ags_d/claim"; } 2>/dev/null || exit 1; set +C
  local ags_child ags_watcher ags_code ags_why ags_pid ags_me=$BASHPID ags_setsid=
  ags_started "$ags_me"; echo "$ags_me $ags_t" >"$ags_d/pid"
  # Reserve space for the exit code, in case the disk is full at the end.
  printf '%4096s' '' >"$ags_d/reserve"
  ags_begin_profile
  : >>"$ags_d/out"; : >>"$ags_d/err"
  if hash setsid 2>/dev/null; then
    ags_setsid=${BASH_CMDS[setsid]}
    ags_command >>"$ags_d/out" 2>>"$ags_d/err" </dev/null &
  else
    set -m; ags_command >>"$ags_d/out" 2>>"$ags_d/err" </dev/null & set +m
  fi
  ags_child=$!
  ags_started "$ags_child"; echo "$ags_child $ags_t" >"$ags_d/child"
  for ags_v in "${!AGS_FLOWS_ENV_@}" AGS_FLOWS_CWD; do unset "$ags_v"; done
  ags_watch &
  ags_watcher=$!
  wait "$ags_child" 2>/dev/null
  ags_code=$?
  ags_drain "$ags_child"
  kill "$ags_watcher" 2>/dev/null
  if [ ! -s "$ags_d/why" ]; then ags_check_profile 2>>"$ags_d/err"
  else
    read -r ags_why <"$ags_d/why"
    kill -s KILL -- "-$ags_child" 2>/dev/null
    for ags_pid in $(ags_strays "$ags_me $ags_watcher"); do kill -s KILL "$ags_pid" 2>/dev/null; done
  fi
  : >"$ags_d/reserve"; if [ -e "$ags_d/in" ]; then rm -f "$ags_d/in"; fi
  for ags_v in 1 2 3 4 5 6 7 8 9 10 11 12; do
    { echo "$ags_code $ags_why" >"$ags_d/rc"; } 2>/dev/null && break
    sleep 5
  done
}
"""

_REPORT = r"""
ags_report() {
  local ags_rc=
  ags_sizes
  [ -s "$ags_d/rc" ] && read -r ags_rc <"$ags_d/rc"
  set -- "MARKER $1 $ags_o $ags_e $ags_d" "MARKER-rc $ags_rc" "MARKER-holder $ags_theirs"
  if [ -n "$ags_rc" ] && [ "$ags_o" -le INLINE_BYTES ] && [ "$ags_e" -le INLINE_BYTES ]; then
    # A value starts after the space and ends before the next marker.
    [ "$ags_o" = 0 ] || set -- "$@" "MARKER-out $(exec base64 <"$ags_d/out")"
    [ "$ags_e" = 0 ] || set -- "$@" "MARKER-err $(exec base64 <"$ags_d/err")"
    set -- "$@" "MARKER-whole "
  fi
  # Each write is a message to the client.
  printf '\n%s' "$@" $'\n'
  exit 0
}
"""

# ags_fill writes the command and its input to the new journal. ags_text is the command if it is short.
_START = r"""
ags_text=$AGS_FLOWS_COMMAND; unset AGS_FLOWS_COMMAND
DIRECTORY
ags_drop() { [ -z "$ags_uploaded$ags_input" ] || rm -f ${ags_uploaded:+"$ags_uploaded"} ${ags_input:+"$ags_input"}; }
trap ags_drop EXIT
ags_fill() {
  if [ -n "$ags_unusable" ]; then rm -rf "$1"; ags_d=-; ags_report "$ags_unusable"; fi
  if [ -n "$ags_input" ]; then cp "$ags_input" "$1/in" || return 1; fi
  if [ -n "$ags_uploaded" ]; then cat "$ags_uploaded"; else printf %s "$ags_text"; fi >"$1/cmd"
}
for ags_attempt in 1 2 3; do
  ags_claim
  ags_name=${ags_d##*/}
  ags_drop; trap - EXIT
  if [ "$ags_outcome" = new ]; then
    if ags_hand_over; then ags_report started; fi
    # In a separate process group, so that a signal to the group of this script does not end the supervisor.
    set -m; ags_supervise </dev/null >/dev/null 2>&1 & set +m
    ags_supervisor=$!
    sleep LINGER_SECONDS </dev/null >/dev/null 2>&1 &
    wait -n "$ags_supervisor" $! 2>/dev/null
    ags_report started
  fi
  [ "$ags_outcome" = stale ] && ags_report "stale"
  if [ -e "$ags_d/claim" ]; then
    [ -s "$ags_d/rc" ] && ags_report done
    for ags_look in 1 2 3 4 5 6 7 8 9 10; do [ -s "$ags_d/pid" ] && break; sleep 0.1; done
    ags_alive "$ags_d/pid" && ags_report running
    sleep 0.2
    [ -s "$ags_d/rc" ] && ags_report done
    ags_report lost
  fi
  if [ $(( $(date +%s) - $(stat -c %Y "$ags_d") )) -lt STALE_SECONDS ]; then sleep 0.5; ags_report starting; fi
  # It was never started. Creating the claim prevents the supervisor of that start from starting it later.
  (set -C; : >"$ags_d/claim") 2>/dev/null && mv -T "$ags_d" "$ags_d.stale.$$"
done
ags_report starting
"""

_LOOK = r"""
if [ -n "$ags_holder" ]; then
  if ags_is_superseded; then ags_report stale; fi
  ags_holder_of "$ags_d"; ags_relate; [ "$ags_relation" != stale ] || ags_report stale
fi
if [ -s "$ags_d/rc" ]; then ags_report done; elif ags_alive "$ags_d/pid"; then ags_report running; fi
sleep 0.3
[ -s "$ags_d/rc" ] && ags_report done
ags_report lost
"""

_KILL = r"""
[ -d "$ags_d" ] && [ ! -s "$ags_d/rc" ] || exit 0
if [ -n "$ags_holder" ]; then
  # A superseded attempt must not kill the command of its successor.
  ags_holder_of "$ags_d"; ags_relate; [ "$ags_relation" != stale ] || exit 0
fi
[ -z "$ags_gives_up" ] || : >"$ags_d/given-up"
if (set -C; : >"$ags_d/claim") 2>/dev/null; then
  # It was not started yet, and this claim prevents that it starts later.
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


@dataclass(frozen=True)
class Limits:
    """The limits of a command.

    Attributes:
        seconds: Time limit in seconds, exact to a millisecond; 0 means no limit.
        output: Maximum number of bytes of both streams together.
        linger: Seconds for which the start waits until the command ends.
    """

    seconds: float
    output: int
    linger: float = LINGER

    @property
    def milliseconds(self) -> int:
        """The time limit."""
        return max(1, round(self.seconds * 1000)) if self.seconds else 0

    @property
    def shown(self) -> str:
        """The time limit in seconds, as a reader sees it."""
        return f"{self.milliseconds / 1000:.3f}".rstrip("0").rstrip(".")


def start_script(request: Request, limits: Limits, *, uploaded: str, stdin: str, runner: str = "") -> str:
    """Return the script that claims a journal, and starts the command or reports its state.

    Args:
        request: The claim request for the journal.
        limits: The limits of the command.
        uploaded: Path of the uploaded command; empty if it is passed in the environment.
        stdin: Path of the uploaded standard input; empty if there is none.
        runner: Name of the process that executes the command instead, if that is alive.
    """
    values = {
        "ags_time": str(limits.milliseconds),
        "ags_limit": limits.shown,
        "ags_output": str(limits.output),
        "ags_uploaded": uploaded,
        "ags_input": stdin,
        "ags_runner": runner,
    }
    return "\n".join(
        [
            assignments(values),
            claim_functions(request),
            ALIVE,
            STRAYS,
            PROFILE,
            DRAIN,
            _SUPERVISE.replace("GRACE_SECONDS", str(GRACE))
            .replace("PAUSE_SECONDS", str(PAUSE))
            .replace("PROLOGUE", shlex.quote(FROM_FILE)),
            _report(),
            hand_over_function(limits.linger),
            _START.replace("LINGER_SECONDS", str(limits.linger))
            .replace("STALE_SECONDS", str(STALE))
            .replace("DIRECTORY", DIRECTORY),
        ]
    )


def look_script(name: str, holder: Holder | None = None) -> str:
    """Return the script that reports whether a command still runs.

    Args:
        name: The journal's name.
        holder: The holder that asks. For a superseded attempt the report is `stale`. None: not compared.
    """
    holds = assignments({"ags_holder": str(holder or "")})
    return "\n".join([holds, _journal(name), HOLDER_FUNCTIONS, ALIVE, _report(), _LOOK])


def kill_script(name: str, holder: Holder | None = None, *, gives_up: bool = False) -> str:
    """Return the script that kills a command's process group, and what left it but inherited its environment.

    Args:
        name: The journal's name.
        holder: The holder that kills. If a later attempt of it holds the journal, nothing is killed. None: no check.
        gives_up: Whether a retry runs the command again.
    """
    values = {"ags_holder": str(holder or ""), "ags_gives_up": "1" if gives_up else ""}
    return "\n".join([assignments(values), _journal(name), HOLDER_FUNCTIONS, STRAYS, _KILL])


def upload_path(call: str) -> str:
    """Return the path to which a call's command is uploaded if it is too long for the environment."""
    return f"/tmp/.ags_flows-cmd-{call}"


def input_path(call: str) -> str:
    """Return the path to which the standard input of a call's command is uploaded before its journal exists."""
    return f"/tmp/.ags_flows-in-{call}"


def _journal(name: str) -> str:
    return f'{assignments({"ags_name": name})}\n{ROOT}\nags_d="$ags_root/{JOURNALS}/$ags_name"'


def _report() -> str:
    return _REPORT.replace("MARKER", MARK).replace("INLINE_BYTES", str(INLINE))
