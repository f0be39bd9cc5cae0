"""Runners: processes in a sandbox that execute durable commands of one kind; each costs less than a new process.

A runner has the directory `<root>/runner/<name>`, with its process id and two named pipes: it gets journals by `calls`,
and nothing is ever written to `pause`. For a journal it is what the supervisor is otherwise. It is the command itself,
executed with its directory in `AGS_FLOWS_RUNNER`.
"""

from __future__ import annotations

PAUSE = 0.01
"""Seconds between two looks for the end of a command."""

# ags_hand_over gives the journal to the runner, which it starts if there is none, and waits for the end. Reading with a
# timeout from a pipe to which nothing is written is a pause that needs no process.
_HAND_OVER = r"""
ags_start_runner() {
  local ags_n=0 ags_setsid=
  # One that ended is replaced. One that has not begun may begin, or never does, as without Python.
  [ ! -s "$ags_r/pid" ] || mv -T "$ags_r" "$ags_r.$$.$RANDOM" 2>/dev/null
  { [ -d "$ags_root/runner" ] || mkdir -m 700 "$ags_root/runner"; mkdir -m 700 "$ags_r"; } 2>/dev/null || return 1
  mkfifo "$ags_r/calls" "$ags_r/pause" || return 1
  set -m
  { ags_name=$ags_runner; export AGS_FLOWS_RUNNER=$ags_r; ags_command; } </dev/null >/dev/null 2>&1 &
  set +m
  exec {ags_p}<>"$ags_r/pause"
  while [ ! -s "$ags_r/pid" ]; do
    kill -0 $! 2>/dev/null && [ "$ags_n" -lt 500 ] || return 1
    read -r -t PAUSE -u "$ags_p"
    ags_n=$((ags_n + 1))
  done
}
ags_hand_over() {
  local ags_p ags_n=0 ags_r="$ags_root/runner/$ags_runner"
  [ -n "$ags_runner" ] && { ags_alive "$ags_r/pid" || ags_start_runner; } || return 1
  { exec {ags_p}<>"$ags_r/calls"; } 2>/dev/null || return 1
  printf '%s\n' "$ags_limit $ags_output $ags_d" >&"$ags_p"
  exec {ags_p}>&- {ags_p}<>"$ags_r/pause"
  while [ ! -s "$ags_d/rc" ] && [ "$ags_n" -lt LOOKS ]; do
    read -r -t PAUSE -u "$ags_p"
    ags_n=$((ags_n + 1))
  done
}
"""


def hand_over_function(linger: float) -> str:
    """Return the function `ags_hand_over` of the start script. It fails if there can be no runner.

    Args:
        linger: Seconds for which it waits until the command ends.
    """
    return _HAND_OVER.replace("LOOKS", str(int(linger / PAUSE))).replace("PAUSE", str(PAUSE))
