"""The shell scripts of the queue in a sandbox: one request hands over many items, which run one after the other.

A queue is the directory `<root>/queue/<family>`. A **bundle** is what one request hands over: its runner is one process
that executes the items in order. For each item there are

- `<item>.claim`: made once, by the runner that executes the item, or by a request that takes the item back;
- `<item>.out`, `<item>.err`, and at the end `<item>.rc`: exit code, why it was killed, milliseconds;

and for each bundle `<bundle>.log`, which gets an entry for each item with its output, so that a client follows all of
them by reading one file; `<bundle>.pid`; and at the very end `<bundle>.end`.

An item never runs twice: its claim outlives the bundle, and a later bundle that has the item reports what became of
it. Items never run side by side: `current` names the latest bundle, an earlier one ends after its present item, and
the later one waits for that. Builtins of the shell do nearly everything: an item costs one process, its own.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from ags_flows.durable.claim_scripts import HOLDER_FUNCTIONS, ROOT
from ags_flows.durable.claims import assignments
from ags_flows.durable.environment import DIRECTORY, FROM_FILE, PROFILE
from ags_flows.durable.scripts import ALIVE, DRAIN, GRACE, PAUSE, STALE, STRAYS, Limits
from ags_flows.ownership import Holder

MARK = "@ags-queue"
LINGER = 1.0
"""Seconds that a request waits for the end of its bundle: short ones cost one request in all."""

INLINE = 16_384
"""Output below this size, in bytes of a stream, is in the log of the bundle."""

FIRST_PIECE = 262_144
"""Bytes of the log that come back with the response of the start."""

_FUNCTIONS = r"""
ags_pause() { if [ -n "$ags_pipe" ]; then read -r -t "$1" -u "$ags_pipe"; else sleep "$1"; fi; }
ags_is_current() { local ags_c=; read -r ags_c <"$ags_q/current"; [ "$ags_c" = "$ags_bundle" ]; } 2>/dev/null
ags_clock() { ags_us=${EPOCHREALTIME-}; ags_us=${ags_us/[.,]/}; [ -n "$ags_us" ] || ags_us=$((SECONDS * 1000000)); }
# One entry of the log. Output with a zero byte, or longer output, is left to the files.
ags_entry() {
  local LC_ALL=C ags_out= ags_err= ags_o=0 ags_e=0
  if [ "$1" = done ]; then
    if [ -s "$ags_j.out" ]; then
      if IFS= read -r -d '' -n INLINE_BYTES ags_out <"$ags_j.out"; then ags_out= ags_o=-; else ags_o=${#ags_out}; fi
    fi
    if [ -s "$ags_j.err" ]; then
      if IFS= read -r -d '' -n INLINE_BYTES ags_err <"$ags_j.err"; then ags_err= ags_e=-; else ags_e=${#ags_err}; fi
    fi
  fi
  printf '@item %s %s %s %s %s %s %s\n%s%s\n' "$ags_item" "$1" "$ags_code" "$ags_why" "$ags_took" "$ags_o" "$ags_e" \
    "$ags_out" "$ags_err" >>"$ags_log"
}
# Whether the item is to be executed now; otherwise ags_how is its outcome.
ags_claim_item() {
  local ags_c= ags_look
  set -C
  if { echo "run $ags_bundle" >"$ags_j.claim"; } 2>/dev/null; then set +C; return 0; fi
  set +C
  for ags_look in 1 2 3; do
    read -r ags_c 2>/dev/null <"$ags_j.claim"
    [ -z "$ags_c" ] || break
    ags_pause 0.1
  done
  case $ags_c in
    "revoked $ags_bundle") ags_how=revoked; return 1 ;;
    "" | "revoked "*) if echo "run $ags_bundle" >"$ags_j.claim"; then return 0; fi; ags_how=full; return 1 ;;
  esac
  ags_how=lost
  if [ -s "$ags_j.rc" ]; then ags_how=done; read -r ags_code ags_why ags_took <"$ags_j.rc"; fi
  return 1
}
"""

# Enforces the limits of the item that is executed.
_WATCH = r"""
ags_watch() {
  local ags_i ags_c ags_s ags_last= ags_spent=0 ags_at ags_next=0 ags_free= ags_kill
  while ags_alive "$ags_q/$ags_bundle.pid"; do
    ags_at=$SECONDS; ags_pause 1; ags_i= ags_kill=
    read -r ags_i ags_c ags_s 2>/dev/null <"$ags_q/now"
    [ -n "$ags_i" ] || continue
    if [ "$ags_i" != "$ags_last" ]; then ags_last=$ags_i ags_next=2 ags_spent=$((SECONDS - ags_s))
    # A second that takes long was a pause of the sandbox, which the time limit does not count.
    elif [ $((SECONDS - ags_at)) -gt PAUSE_SECONDS ]; then ags_spent=$((ags_spent + 1))
    else ags_spent=$((ags_spent + SECONDS - ags_at)); fi
    if [ "$ags_time" -gt 0 ] && [ "$ags_spent" -ge "$ags_time" ]; then ags_kill="timeout:$ags_time"; fi
    if [ "$ags_spent" -ge "$ags_next" ]; then
      ags_next=$((ags_spent + 2))
      set -- $(exec stat -c %s "$ags_q/$ags_i.out" "$ags_q/$ags_i.err" 2>/dev/null); set -- $((${1:-0} + ${2:-0}))
      if [ -z "$ags_free" ]; then
        # A tenth of the disk stays free, whatever the limit.
        ags_free=$1; set -- $(df -Pk "$ags_q" 2>/dev/null | tail -n 1)
        ags_free=$((ags_free + ${4:-99999999999} * 1024 / 10 * 9)); set -- 0
        [ "$ags_free" -ge "$ags_output" ] || ags_output=$ags_free
      fi
      if [ "$1" -gt "$ags_output" ]; then ags_kill="output:$ags_output"; fi
    fi
    if [ -n "$ags_kill" ]; then
      echo "$ags_kill" >"$ags_q/$ags_i.why"
      kill -s TERM -- "-$ags_c" 2>/dev/null
      ags_pause GRACE_SECONDS
      kill -s KILL -- "-$ags_c" 2>/dev/null
    fi
  done
}
"""

# The process that executes the items.
_WORK = r"""
ags_execute() {
  # Like the environment of the command, and after it, that of the item is set after the login profile.
  eval 'set -- "${!ags_piece_'"$ags_n"'_@}"'
  for ags_v; do export "AGS_FLOWS_ENV_ITEM_${ags_v##*_}=${!ags_v}"; done
  export AGS_FLOWS_JOURNAL="$ags_item"
  export AGS_FLOWS_FILE="$ags_q/$ags_bundle.cmd" AGS_FLOWS_INPUT=/dev/null
  exec $ags_setsid "$BASH" -l -c PROLOGUE
}
ags_work() {
  set +m; set +C
  local ags_item ags_j ags_n=-1 ags_child ags_watcher ags_from ags_setsid= ags_before ags_pid ags_end=whole
  local ags_how ags_code ags_why ags_took
  { exec {ags_pipe}<> <(:); } 2>/dev/null || ags_pipe=
  ags_started "$BASHPID"; echo "$BASHPID $ags_t" >"$ags_q/$ags_bundle.pid" || exit 9
  while ags_is_current; do
    ags_before=; read -r ags_before 2>/dev/null <"$ags_q/runner"
    [ -n "$ags_before" ] && [ "$ags_before" != "$ags_bundle" ] && ags_alive "$ags_q/$ags_before.pid" || break
    ags_pause 0.2
  done
  if ags_is_current; then echo "$ags_bundle" >"$ags_q/runner"; fi
  # Where the disk is full at the end of an item, the exit code takes the place of this.
  printf '%4096s' '' >"$ags_q/reserve"; : >"$ags_q/now"
  if hash setsid 2>/dev/null; then ags_setsid=${BASH_CMDS[setsid]}; fi
  ags_watch & ags_watcher=$!
  for ags_item in $ags_items; do
    ags_n=$((ags_n + 1)) ags_j="$ags_q/$ags_item" ags_code=- ags_why=- ags_took=0
    ags_is_current || { ags_end=displaced; break; }
    if ! ags_claim_item; then
      if [ "$ags_how" = full ]; then ags_end=full; break; fi
      ags_entry "$ags_how"; continue
    fi
    { : >"$ags_j.out" && : >"$ags_j.err"; } 2>/dev/null || { ags_end=full; break; }
    ags_begin_profile
    ags_clock; ags_from=$ags_us
    [ -n "$ags_setsid" ] || set -m
    ags_execute >>"$ags_j.out" 2>>"$ags_j.err" </dev/null &
    ags_child=$!; set +m
    echo "$ags_item $ags_child $SECONDS" >"$ags_q/now"
    wait "$ags_child" 2>/dev/null
    ags_code=$?; ags_drain "$ags_child"; : >"$ags_q/now"
    ags_clock; ags_took=$(((ags_us - ags_from) / 1000))
    if [ ! -s "$ags_j.why" ]; then ags_check_profile 2>>"$ags_j.err"
    else
      read -r ags_why <"$ags_j.why"; ags_name=$ags_item
      kill -s KILL -- "-$ags_child" 2>/dev/null
      for ags_pid in $(ags_strays "$BASHPID $ags_watcher"); do kill -s KILL "$ags_pid" 2>/dev/null; done
    fi
    echo "$ags_code $ags_why $ags_took" 2>/dev/null >"$ags_j.rc" || {
      : >"$ags_q/reserve"; echo "$ags_code $ags_why $ags_took" >"$ags_j.rc" || { ags_end=full; break; }
    }
    ags_entry "done" || { ags_end=full; break; }
  done
  kill "$ags_watcher" 2>/dev/null
  : >"$ags_q/reserve"; echo "@end $ags_end" >>"$ags_log"; echo "$ags_end" >"$ags_q/$ags_bundle.end"
}
"""

_START = r"""
ags_text=$AGS_FLOWS_COMMAND; unset AGS_FLOWS_COMMAND
for ags_v in "${!AGS_FLOWS_ITEM_@}"; do
  ags_n=${ags_v#AGS_FLOWS_ITEM_}
  printf -v "ags_piece_$((10#${ags_n%_*}))_${ags_n##*_}" %s "${!ags_v}"; unset "$ags_v"
done
DIRECTORY
ags_q="$ags_root/queue/$ags_family" ags_log="$ags_root/queue/$ags_family/$ags_bundle.log" ags_pipe=
ags_report() {
  local ags_end=-
  [ -e "$ags_q/$ags_bundle.end" ] && read -r ags_end <"$ags_q/$ags_bundle.end"
  printf '\n%s\n' "MARKER $1 ${ags_end:--} $ags_q"
  [ ! -s "$ags_log" ] || head -c FIRST_PIECE "$ags_log" | base64 -w 0
  exit 0
}
if ags_is_superseded; then printf '\n%s\n' "MARKER stale - $ags_theirs"; exit 0; fi
[ -d "$ags_q" ] || mkdir -p -m 700 "$ags_q" || exit 9
[ -z "$ags_unusable" ] || ags_report "$ags_unusable"
set -C
if { : >"$ags_log"; } 2>/dev/null; then
  set +C
  ags_gone=(); for ags_v in $ags_forget; do ags_gone+=("$ags_q/$ags_v".{out,err,rc,why,log,cmd,pid,end}); done
  [ -z "$ags_forget$ags_paths" ] || (cd "$ags_q" && rm -rf -- "${ags_gone[@]}" $ags_paths)
  printf %s "$ags_text" >"$ags_q/$ags_bundle.cmd" && echo "$ags_bundle" >"$ags_q/current" || exit 9
  # In its own process group: what ends the group of this start does not end the runner.
  set -m; ags_work </dev/null >/dev/null 2>&1 & set +m
  ags_runner=$!
  sleep LINGER_SECONDS </dev/null >/dev/null 2>&1 &
  ags_sleep=$!; wait -n "$ags_runner" "$ags_sleep" 2>/dev/null; kill "$ags_sleep" 2>/dev/null
  ags_report running
fi
set +C
[ -e "$ags_log" ] || { : >"$ags_log"; exit 9; }
for ags_look in 1 2 3; do
  [ -e "$ags_q/$ags_bundle.end" ] && ags_report running
  ags_alive "$ags_q/$ags_bundle.pid" && ags_report running
  if [ ! -e "$ags_q/$ags_bundle.pid" ]; then
    [ $(($(date +%s) - $(stat -c %Y "$ags_log"))) -ge STALE_SECONDS ] || ags_report running
  fi
  sleep 0.1
done
ags_report lost
"""

_REVOKE = r"""
ags_q="$ags_root/queue/$ags_family"
set -C; echo
for ags_item in $ags_items; do
  if { echo "revoked $ags_bundle" >"$ags_q/$ags_item.claim"; } 2>/dev/null; then echo "MARKER $ags_item"; fi
done
"""


def start_script(
    family: str,
    bundle: str,
    items: Sequence[str],
    holder: Holder,
    limits: Limits,
    *,
    forget: Sequence[str] = (),
    paths: Sequence[str] = (),
) -> str:
    """Return the script that hands a bundle over, or reports on one that was handed over before.

    The command comes in `AGS_FLOWS_COMMAND`, the environment of the item at position n, as lines
    of `AGS_FLOWS_SET`, in `AGS_FLOWS_ITEM_<n>_0`, `AGS_FLOWS_ITEM_<n>_1`, ...

    Args:
        family: The name of the queue.
        bundle: The name of the bundle, new for each.
        items: The names of its items, in order.
        holder: The attempt on whose behalf it is. Nothing starts if a later attempt has the sandbox.
        limits: What each item may use.
        forget: Names of items and bundles whose files are removed, except for claims.
        paths: More paths that are removed.
    """
    values = {
        "ags_family": family,
        "ags_bundle": bundle,
        "ags_items": " ".join(items),
        "ags_holder": str(holder),
        "ags_time": str(math.ceil(limits.seconds)),
        "ags_output": str(limits.output),
        "ags_forget": " ".join(forget),
        "ags_paths": " ".join(paths),
    }
    text = "\n".join(
        [assignments(values), ROOT, HOLDER_FUNCTIONS, ALIVE, STRAYS, PROFILE, DRAIN, _FUNCTIONS, _WATCH, _WORK, _START]
    )
    for name, value in {
        "MARKER": MARK,
        "DIRECTORY": DIRECTORY,
        "PROLOGUE": shlex.quote(FROM_FILE),
        "INLINE_BYTES": str(INLINE),
        "FIRST_PIECE": str(FIRST_PIECE),
        "LINGER_SECONDS": str(LINGER),
        "STALE_SECONDS": str(STALE),
        "GRACE_SECONDS": str(GRACE),
        "PAUSE_SECONDS": str(PAUSE),
    }.items():
        text = text.replace(name, value)
    return text


def revoke_script(family: str, bundle: str, items: Sequence[str]) -> str:
    """Return the script that takes items of a bundle back that were not begun, and reports which."""
    values = {"ags_family": family, "ags_bundle": bundle, "ags_items": " ".join(items)}
    return "\n".join([assignments(values), ROOT, _REVOKE.replace("MARKER", MARK)])
