"""The scripts in bash that claim places in a sandbox, by the rule of `ags_flows.ownership.claim`."""

from __future__ import annotations

INSTANCE_KIND, INSTANCE_FAMILY = "instance", "sandbox"
"""Directory and family of the one place that stands for the whole sandbox; in the scripts, `instance/sandbox.0`."""

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
HOLDER_FUNCTIONS = r"""
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
ags_shared=${AGS_FLOWS_SHARED:-/tmp/.ags_flows-instance-$AGS_FLOWS_SANDBOX}
ags_is_superseded() {
  local ags_d
  for ags_d in "$ags_shared" {"$HOME/.ags_flows","/tmp/.ags_flows-$UID"}/"$AGS_FLOWS_SANDBOX/instance"; do
    [ -d "$ags_d/sandbox.0" ] || continue
    ags_holder_of "$ags_d/sandbox.0"; ags_relate
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

# ags_claim sets ags_outcome, ags_number and ags_d. ags_fill may add files to a new place before it becomes visible.
CLAIM = r"""
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
  if [ "$ags_kind" = instance ] && mkdir -p -m 755 "$ags_shared" 2>/dev/null && [ -w "$ags_shared" ]; then
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

REPORT = r"""
ags_claim
ags_full=; [ -s "$ags_d/result" ] && ags_full=result
printf '\n%s\n' "MARKER $ags_outcome $ags_number ${ags_full:--} $ags_d" "MARKER-holder $ags_theirs"
"""

# ags_result is the result of a step that was done before its place was claimed.
RECORD = r"""
ags_claim
case $ags_outcome in
  new | same | taken)
    ags_new="$ags_d/.new.$$.$RANDOM"
    printf %s "$ags_result" >"$ags_new" && mv -T "$ags_new" "$ags_d/result" || exit 9 ;;
esac
printf '\n%s\n' "MARKER $ags_outcome $ags_number result $ags_d" "MARKER-holder $ags_theirs"
"""

# Atomic as all claims: a holder that took the place over before keeps it. No attempt supersedes the holder `ended`.
ABANDON = r"""
ags_d=$ags_directory; ags_holder_of "$ags_d"; ags_relate
if [ "$ags_relation" = same ]; then ags_holder=ended; ags_take || :; fi
"""

RELEASE = r"""
while :; do
  ags_claim
  case $ags_outcome in same) ;; taken) ags_last=$((ags_last + 1)) ;; *) break ;; esac
  ags_mine=$ags_holder ags_holder=ended
  if ags_take; then break; fi
  ags_holder=$ags_mine
done
printf '\n%s\n' "MARKER $ags_outcome $ags_number - $ags_d" "MARKER-holder $ags_theirs"
"""
