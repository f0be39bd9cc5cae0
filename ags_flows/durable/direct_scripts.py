"""The shell scripts of direct commands: one runs a command without a journal, one kills what it has started."""

from __future__ import annotations

import shlex

from ags_flows.durable.claim_scripts import HOLDER_FUNCTIONS
from ags_flows.durable.claims import assignments
from ags_flows.durable.environment import DIRECTORY, FROM_VARIABLES, PROFILE
from ags_flows.durable.scripts import STRAYS
from ags_flows.ownership import Holder

_RUN = f"""
ags_refuse() {{ echo "$ags_mark $*" >&2; exit 1; }}
if ags_is_superseded; then ags_refuse superseded "$ags_theirs"; fi
{DIRECTORY}
[ -z "$ags_unusable" ] || ags_refuse "$ags_unusable"
export AGS_FLOWS_JOURNAL="$ags_name"
ags_begin_profile
# If the command is killed, this shell would print its text.
exec {{ags_err}}>&2 2>/dev/null
"$BASH" -l -c {shlex.quote(FROM_VARIABLES)} 2>&"$ags_err" {{ags_err}}>&-
ags_code=$?
ags_check_profile 2>&"$ags_err"
exit "$ags_code"
"""

_KILL = r"""
for ags_signal in TERM KILL KILL; do
  for ags_look in 1 2 3 4 5; do
    ags_found=$(ags_strays "")
    [ -n "$ags_found" ] || exit 0
    [ "$ags_look" != 1 ] || kill -s "$ags_signal" $ags_found 2>/dev/null
    sleep 0.2
  done
done
"""


def direct_script(holder: Holder, mark: str) -> str:
    """Return the script that runs a command without a journal. Its text and environment are passed in variables.

    Args:
        holder: The holder that runs it. If a later attempt of it owns the sandbox, the command is not run.
        mark: Before the reason why the command is not run, on stderr: new for each call.
    """
    values = {"ags_holder": str(holder), "ags_mark": mark, "ags_name": _name(holder)}
    return "\n".join([assignments(values), HOLDER_FUNCTIONS, PROFILE, _RUN])


def kill_script(holder: Holder) -> str:
    """Return the script that kills what a direct command has started, and that has its environment.

    Args:
        holder: The holder that runs it.
    """
    return "\n".join([assignments({"ags_name": _name(holder)}), STRAYS, _KILL])


def _name(holder: Holder) -> str:
    return f"direct-{holder.call}"
