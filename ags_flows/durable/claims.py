"""Claims in a sandbox: determine atomically which place of a family a call gets, and whether its step is done.

A claimed place is a directory `<root>/<kind>/<family>.<number>`; the root is `~/.ags_flows/<id of the sandbox>`. It is
created under a temporary name, with the holder's text in the file `holder`, and then renamed: it exists completely or
not at all, and a second rename fails. A later attempt that takes over adds `holder.1/text`, `holder.2/text`, ..., in
the same way, so that exactly one of several claimants succeeds. The last one is the current holder.

The scripts apply the rule of `ags_flows.ownership.claim`. One round trip is enough for any number of places.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.forks import ModuleLock
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import SupersededError, UnsupportedError
from ags_flows.ownership import Frame, Holder, Step

CALL_TIMEOUT = 30.0
CLAIM_BACKOFF = Backoff(attempts=3, first_pause=0.5)
RELEASE_TIMEOUT = 5.0
INSTANCE_BACKOFF = Backoff(attempts=None, patience=60.0, first_pause=0.5, longest_pause=5.0)
"""If a sandbox does not respond for this long, it is not taken over and stops when its lease expires."""

MARK = "@ags-claim"
NEEDS = "Commands, cells and take-overs need bash, coreutils, and a writable home directory or /tmp."

_INSTANCE_KIND, _INSTANCE_FAMILY = "instance", "sandbox"
_REMEMBERED = 1_000


@dataclass
class _Hint:
    """What this process knows about the places of one family, for the calls of one execution.

    Attributes:
        free: The first place that may be free.
        asked: Ids of the calls that have sent a request.
        claimed: Id of a call to the number of its place.
    """

    free: int = 0
    asked: set[str] = field(default_factory=set)
    claimed: dict[str, int] = field(default_factory=dict)


_hints: WeakKeyDictionary[DataPlane, LRUCache[tuple[str, str, tuple[Frame, ...]], _Hint]] = WeakKeyDictionary()
_hints_lock = ModuleLock()

Outcome = Literal["new", "same", "taken", "sibling"]

# The directory of all claims in this sandbox. A sandbox that is started from a snapshot, or as a clone, also has the
# directory of the sandbox that was copied: those claims mean nothing here.
ROOT = r"""
ags_root="$HOME/.ags_flows"
if ! { [ -d "$ags_root" ] || mkdir -p -m 700 "$ags_root" 2>/dev/null; } ||
    [ ! -w "$ags_root" ] || [ ! -O "$ags_root" ]; then
  ags_root="/tmp/.ags_flows-$UID"
  mkdir -p -m 700 "$ags_root" || exit 9
  [ -O "$ags_root" ] || { echo "$ags_root belongs to another user" >&2; exit 9; }
fi
[ -s "$ags_root/.gitignore" ] || echo '*' 2>/dev/null >"$ags_root/.gitignore" || :
ags_root="$ags_root/$AGS_FLOWS_SANDBOX"
[ -d "$ags_root" ] || mkdir -p -m 700 "$ags_root" || exit 9
"""

# ags_holder_of DIRECTORY sets ags_theirs to its current holder, and ags_last to the number of times it was taken over.
# ags_relate compares ags_holder with ags_theirs, frame by frame: the same rule as ags_flows.ownership.relation.
_HOLDER_FUNCTIONS = r"""
ags_holder_of() {
  ags_theirs= ags_last=0
  while [ -e "$1/holder.$((ags_last + 1))/text" ]; do ags_last=$((ags_last + 1)); done
  if [ "$ags_last" = 0 ]; then read -r ags_theirs <"$1/holder"; else read -r ags_theirs <"$1/holder.$ags_last/text"; fi
} 2>/dev/null
ags_relate() {
  local ags_mine ags_at=0
  local IFS=' '
  if [ "$ags_holder" = "$ags_theirs" ]; then ags_relation=same; return; fi
  set -f; set -- $ags_theirs
  for ags_mine in $ags_holder; do
    if [ "$ags_mine" != "$1" ]; then
      if [ "${ags_mine%:*}" != "${1%:*}" ]; then
        if [ "$ags_at" = 0 ]; then ags_relation=stranger; else ags_relation=sibling; fi
      elif [ "${ags_mine##*:}" -gt "${1##*:}" ]; then ags_relation=superseded
      else ags_relation=stale
      fi
      set +f; return
    fi
    shift; ags_at=1
  done
  ags_relation=sibling; set +f
}
# Whether a later attempt of the caller owns the sandbox.
ags_shared=${AGS_FLOWS_SHARED:-/tmp/.ags_flows-INSTANCE_KIND-$AGS_FLOWS_SANDBOX}
ags_is_superseded() {
  local ags_d
  for ags_d in "$ags_shared" {"$HOME/.ags_flows","/tmp/.ags_flows-$UID"}/"$AGS_FLOWS_SANDBOX/INSTANCE_KIND"; do
    [ -d "$ags_d/INSTANCE_FAMILY.0" ] || continue
    ags_holder_of "$ags_d/INSTANCE_FAMILY.0"; ags_relate
    [ "$ags_relation" != stale ] || return 0
  done
  return 1
}
# Add this call as the next holder of a place. Fails if another call was faster.
ags_take() {
  local ags_new="$ags_d/.holder.$$.$RANDOM"
  mkdir "$ags_new" && printf '%s\n' "$ags_holder" >"$ags_new/text" || { rm -rf "$ags_new"; exit 9; }
  mv -T "$ags_new" "$ags_d/holder.$((ags_last + 1))" 2>/dev/null || { rm -rf "$ags_new"; return 1; }
}
"""

HOLDER_FUNCTIONS = _HOLDER_FUNCTIONS.replace("INSTANCE_KIND", _INSTANCE_KIND).replace(
    "INSTANCE_FAMILY", _INSTANCE_FAMILY
)

# ags_claim sets ags_outcome, ags_number and ags_d. ags_fill may add files to a new place before it becomes visible.
_CLAIM = r"""
ags_fill() { :; }
# A retry runs a command again that its own attempt killed because of a time limit or a cancellation.
ags_given_up() {
  local ags_code ags_reason
  [ -e "$ags_d/given-up" ] || return 1
  read -r ags_code ags_reason 2>/dev/null <"$ags_d/rc" || return 0
  [ "$ags_reason" = cancelled ] && [ "$ags_code" != 0 ]
}
ags_consider() {
  ags_holder_of "$ags_d"
  ags_relate
  case $ags_relation in same | superseded) if ags_given_up; then ags_outcome=next; return; fi ;; esac
  case $ags_relation in
    same) ags_outcome=same ;;
    superseded) if ags_take; then ags_outcome=taken; else ags_outcome=again; fi ;;
    stale) ags_outcome=stale ;;
    *) ags_outcome=next ;;
  esac
}
ags_claim() {
  local ags_new
  ags_outcome= ags_number=$ags_first
  ags_places="$ags_root/$ags_kind"
  # All users of the sandbox must be able to read its owner.
  if [ "$ags_kind" = INSTANCE_KIND ] && mkdir -p -m 755 "$ags_shared" 2>/dev/null && [ -w "$ags_shared" ]; then
    ags_places=$ags_shared
  fi
  [ -d "$ags_places" ] || mkdir -p -m 700 "$ags_places" || exit 9
  # An attempt starts nothing in a sandbox that a later attempt has taken over.
  if ags_is_superseded; then ags_outcome=stale; return; fi
  while :; do
    ags_d="$ags_places/$ags_family.$ags_number"
    if [ ! -d "$ags_d" ]; then
      ags_new="$ags_places/.new.$$.$RANDOM"
      mkdir "$ags_new" && printf '%s\n' "${ags_seed:-$ags_holder}" >"$ags_new/holder" && ags_fill "$ags_new" ||
        { rm -rf "$ags_new"; exit 9; }
      # Renaming a directory to an existing directory fails if that is not empty.
      if mv -T "$ags_new" "$ags_d" 2>/dev/null; then
        [ -n "$ags_seed" ] || { ags_outcome=new; return; }
      else
        rm -rf "$ags_new"
        [ -d "$ags_d" ] || { echo "$ags_d cannot be created" >&2; exit 9; }
      fi
    fi
    ags_consider
    case $ags_outcome in
      same | taken | stale) return ;;
      next) if [ -n "$ags_single" ]; then ags_outcome=sibling; return; fi; ags_number=$((ags_number + 1)) ;;
    esac
  done
}
"""

_REPORT = r"""
ags_claim
ags_full=; [ -s "$ags_d/result" ] && ags_full=result
printf '\n%s\n' "MARKER $ags_outcome $ags_number ${ags_full:--} $ags_d" "MARKER-holder $ags_theirs"
"""

# ags_result is the result of a step that was done before its place was claimed.
_RECORD = r"""
ags_claim
case $ags_outcome in
  new | same | taken)
    ags_new="$ags_d/.new.$$.$RANDOM"
    printf %s "$ags_result" >"$ags_new" && mv -T "$ags_new" "$ags_d/result" || exit 9 ;;
esac
printf '\n%s\n' "MARKER $ags_outcome $ags_number result $ags_d" "MARKER-holder $ags_theirs"
"""

# Atomic as all claims: a holder that took the place over before keeps it. No attempt supersedes the holder `ended`.
_ABANDON = r"""
ags_d=$ags_directory; ags_holder_of "$ags_d"; ags_relate
if [ "$ags_relation" = same ]; then ags_holder=ended; ags_take || :; fi
"""

_RELEASE = r"""
while :; do
  ags_claim
  case $ags_outcome in same) ;; taken) ags_last=$((ags_last + 1)) ;; *) break ;; esac
  ags_mine=$ags_holder ags_holder=ended
  if ags_take; then break; fi
  ags_holder=$ags_mine
done
printf '\n%s\n' "MARKER $ags_outcome $ags_number - $ags_d" "MARKER-holder $ags_theirs"
"""


@dataclass(frozen=True)
class Request:
    """A request for a claim in a sandbox.

    Attributes:
        kind: Name of the directory of such places: letters.
        family: 32 hexadecimal digits, or another name.
        holder: The holder that claims.
        first: The first place to consider. This hint saves time; earlier places cannot be the caller's.
        seed: The holder of a place that was not claimed yet, as an instance's metadata has it.
        single: Whether the family has only one place.
    """

    kind: str
    family: str
    holder: Holder
    first: int = 0
    seed: Holder | None = None
    single: bool = False


@dataclass(frozen=True)
class Claimed:
    """The result of a claim.

    Attributes:
        outcome: See `ags_flows.ownership.Claim`; or `sibling` if the only place belongs to another call.
        number: Number of the place.
        has_result: Whether the place has a file `result`.
        directory: Absolute path of the place in the sandbox.
    """

    outcome: Outcome
    number: int
    has_result: bool
    directory: str


def claim_instance(plane: DataPlane, holder: Holder, predecessor: Holder) -> bool:
    """Claim a whole sandbox of an earlier attempt, and return whether the caller owns it now.

    Args:
        plane: The sandbox.
        holder: The holder that takes over.
        predecessor: The holder in the metadata of the sandbox.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    request = Request(_INSTANCE_KIND, _INSTANCE_FAMILY, holder, seed=predecessor, single=True)
    return claim(plane, request, INSTANCE_BACKOFF).outcome in ("same", "taken")


def release_instance(plane: DataPlane, holder: Holder) -> None:
    """Record in a sandbox that its holder stops it. After that, no later attempt takes it over.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    request = Request(_INSTANCE_KIND, _INSTANCE_FAMILY, holder, seed=holder, single=True)
    _ask(plane, claim_functions(request) + _RELEASE, Backoff(attempts=1), RELEASE_TIMEOUT)


def request_for(plane: DataPlane, kind: str, step: Step) -> Request:
    """Return the claim request of a step in a sandbox, with the first place that can be the caller's.

    A repeated call considers all places: it may have a place already whose response was lost.
    """
    hint = _hint(plane, kind, step)
    call = step.holder.call
    first = hint.claimed.get(call, 0 if call in hint.asked else hint.free)
    hint.asked.add(call)
    return Request(kind, step.family, step.holder, first)


def remember(plane: DataPlane, kind: str, step: Step, name: str) -> None:
    """Remember a claim for repeated calls, and as a hint for other calls of the same executions.

    Args:
        plane: The sandbox.
        kind: Name of the directory of the place.
        step: The step that claimed the place.
        name: Name of the place: `<family>.<number>`.
    """
    family, _, number = name.rpartition(".")
    if family == step.family:
        hint = _hint(plane, kind, step)
        hint.claimed[step.holder.call] = int(number)
        hint.free = max(hint.free, int(number) + 1)


def _hint(plane: DataPlane, kind: str, step: Step) -> _Hint:
    with _hints_lock:
        hints = _hints.setdefault(plane, LRUCache(_REMEMBERED))
        return hints.setdefault((kind, step.family, step.holder.enclosing), _Hint())


def claim(plane: DataPlane, request: Request, backoff: Backoff = CLAIM_BACKOFF) -> Claimed:
    """Claim a place in a sandbox, in one round trip.

    If the response is lost, the request is repeated. The outcome is then `same`.

    Raises:
        SupersededError: A later attempt of the same run has the place.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    return _ask(plane, claim_functions(request) + _REPORT, backoff, CALL_TIMEOUT)


def record(plane: DataPlane, request: Request, result: str) -> Claimed:
    """Claim a place, and store the result of a finished step there for a retry, in one round trip.

    Raises:
        SupersededError: A later attempt of the same run has the place, or the sandbox.
        UnsupportedError: The sandbox cannot hold claims.
        UnreachableError: The sandbox did not respond.
    """
    script = "\n".join([assignments({"ags_result": result}), claim_functions(request), _RECORD])
    return _ask(plane, script, Backoff(), CALL_TIMEOUT)


def abandon(plane: DataPlane, claimed: Claimed, holder: Holder) -> None:
    """End a claim whose step was not executed, unless another holder has taken it over. A repetition gets another one.

    Raises:
        UnreachableError: The sandbox did not respond.
    """
    known = assignments({"ags_directory": claimed.directory, "ags_holder": str(holder)})
    script = "\n".join([known, HOLDER_FUNCTIONS, _ABANDON])
    persistently(lambda: plane.script(script, timeout=CALL_TIMEOUT))


def _ask(plane: DataPlane, script: str, backoff: Backoff, timeout: float) -> Claimed:
    script = script.replace("MARKER", MARK)
    response = persistently(lambda: plane.script(script, timeout=timeout), backoff)
    lines = [line for line in response.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise UnsupportedError(
            f"The sandbox {plane.instance_id} does not support claims (exit code {response.exit_code}): "
            f"{(response.stderr or response.stdout).strip()[-300:]}",
            hint=NEEDS,
        )
    _, outcome, number, full, directory = lines[0].split(" ", 4)
    if outcome == "stale":
        raise superseded(plane.instance_id, lines[1].partition(" ")[2])
    return Claimed(outcome, int(number), full == "result", directory)  # type: ignore[arg-type]


def superseded(instance_id: str, successor: str, process: str = "") -> SupersededError:
    """Return the error of an attempt whose sandbox or step a later attempt holds.

    Args:
        instance_id: The sandbox.
        successor: The text of the later attempt's holder.
        process: Process and host of the later attempt, empty if not known.
    """
    holder = Holder.parse(successor)
    where = "; ".join(part for part in (holder.described if holder else "", process) if part)
    return SupersededError(
        f"A later attempt{where and f' ({where})'} has taken over the work of this one in sandbox {instance_id}.",
        hint="This attempt ends here, and leaves everything to its successor.",
    )


def claim_functions(request: Request) -> str:
    """Return the part of a script that defines `ags_claim`."""
    values = {
        "ags_kind": request.kind,
        "ags_family": request.family,
        "ags_holder": str(request.holder),
        "ags_first": str(request.first),
        "ags_seed": str(request.seed or ""),
        "ags_single": "1" if request.single else "",
    }
    script = "\n".join([assignments(values), ROOT, HOLDER_FUNCTIONS, _CLAIM])
    return script.replace("INSTANCE_KIND", _INSTANCE_KIND).replace("INSTANCE_FAMILY", _INSTANCE_FAMILY)


def assignments(values: Mapping[str, str]) -> str:
    """Return the lines that set variables of a script."""
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
