"""What a shell of SWE-ReX gets for one step: a file with the command, and a short line that runs it.

SWE-ReX types a command into a terminal, joins its lines with `;`, and searches the output for its own markers. So here
documents are lost, a long text does not fit, and a command that ends the shell or reads from the terminal leaves no
outcome. Therefore the command is a file, whose text the line evaluates with an empty standard input, and its end has a
marker of the step. The file is removed right before that: while it has its text, nothing of the command was executed.
"""

from __future__ import annotations

import re
import shlex
import string
from dataclasses import dataclass

# SWE-ReX's prompt, printed by a shell that ends, so that SWE-ReX returns the output as that of any command. A trap that
# an earlier step has set comes first.
_AT_EXIT = r"""
ags_code=$?; \builtin set +e; (\builtin exit "$ags_code")
EARLIER
{ \builtin printf '\n%s %s ended\n%s' "$ags_mark" "$ags_code" SHELLPS1PREFIX; } >/dev/tty 2>/dev/null
"""

# The backslashes prevent aliases, and `builtin` the functions, of the caller. In POSIX mode, no function replaces
# `unset` and `set`, so that a function named `builtin` is removed. The prompt may be the caller's, and errors may go to
# a file: then SWE-ReX would not see it. PATH may be the caller's, too. No variable has the text: exported, it could be
# too long for any program. A check without a message could not run, as after `ulimit -v`. A builtin that is disabled
# spoils the shell, and another bash reports it.
_STEP = r"""
ags_mark=MARK ags_note=+O; [[ :$BASHOPTS: != *:extglob:* ]] || ags_note=-O
if ags_note=$("/proc/$$/exe" -p -n $ags_note extglob FILE 2>&1 </dev/null) || [[ -z $ags_note ]]; then
  \builtin eval "ags_exit=($(\builtin trap -p EXIT))"; ags_exit=${ags_exit[2]-}
  case $ags_exit in *ags_mark*) ;; *) ags_note=AT_EXIT; \builtin trap "${ags_note/EARLIER/$ags_exit}" EXIT ;; esac
  ags_note=${ags_options//[!avxk]/}
  \builtin eval "{ /bin/rm -f FILE || >|FILE
$ags_debug
} 2>/dev/null
${ags_note:+\\builtin set -$ags_note
}$(<FILE)
" </dev/null
  { ags_code=$? ags_options=$- POSIXLY_CORRECT=${POSIXLY_CORRECT-ags}; \set +avxk; \unset -f builtin
  \builtin [ "$POSIXLY_CORRECT" != ags ] || \unset POSIXLY_CORRECT
  ags_debug=$(\builtin trap -p DEBUG); \builtin trap - DEBUG; } >/dev/null 2>&1
  { \builtin trap - DEBUG && \builtin set +avxk && \builtin [ x ] && \builtin eval : &&
    \builtin unset ags_note ags_exit &&
    \builtin declare ags_mark= ags_options="$ags_options" ags_debug="${ags_debug:-:}" PS1=SHELLPS1PREFIX PS2= PS0= &&
    \builtin printf '\n%s %s\n' MARK "$ags_code" >/dev/tty
  } 2>/dev/null || "/proc/$$/exe" -p -c 'printf "\n%s %s spoiled\n%s" "$@" >/dev/tty' - MARK "$ags_code" SHELLPS1PREFIX
  \builtin unset ags_code
else
  { /bin/rm -f FILE || >|FILE; } 2>/dev/null
  \builtin printf '%s\n%s syntax\n' "${ags_note//"FILE"/bash}" MARK >/dev/tty
  \builtin unset ags_note
fi
[[ $PS1 = SHELLPS1PREFIX && -t 2 ]] || \builtin printf SHELLPS1PREFIX >/dev/tty
"""

# What is traced here would be output of the step. `set -avxk` and a DEBUG trap apply to the caller's commands only.
_UNTRACED = "{ ags_options=${ags_options-$-} ags_debug=${ags_debug-:}; \\builtin set +avxk; } 2>/dev/null"

_PLAIN = frozenset(f"{string.ascii_letters}{string.digits} _-./=".encode())


def step_line(file: str, mark: str) -> str:
    """Return the line that runs the command of a file in a shell of SWE-ReX.

    Args:
        file: A path that needs no quotes.
        mark: A word that is in no output.
    """
    script = _STEP.replace("AT_EXIT", shlex.quote(_AT_EXIT.strip())).replace("MARK", mark).replace("FILE", file)
    encoded = "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in script.encode())
    return f"{_UNTRACED}; \\builtin eval \"$(\\builtin printf %b '{encoded}')\""


BYE = "exit\n"
"""What an interactive bash prints when its `exit` is called."""


@dataclass(frozen=True)
class StepEnd:
    """How a step ended, by the marker in its output.

    Attributes:
        output: The output before the marker.
        exit_code: The exit code, None if nothing was executed because of a syntax error.
        shell_ended: Whether the shell ended with the command.
        is_spoiled: Whether the shell cannot be used by a later step.
    """

    output: str
    exit_code: int | None
    shell_ended: bool = False
    is_spoiled: bool = False


def read_end(output: str, mark: str) -> StepEnd | None:
    """Return how a step ended, or None if its marker is not in the output."""
    found = re.search(rf"\n?{re.escape(mark)} (?:(\d+)( ended| spoiled)?|syntax)(?=\n)", output)
    if found is None:
        return None
    code, state = found.groups()
    before, ended = output[: found.start()], state == " ended"
    if ended and (before == BYE or before.endswith(f"\n{BYE}")):
        before = before.removesuffix(BYE)
    return StepEnd(before, None if code is None else int(code), ended, state == " spoiled")
