"""What bash gets with a command: environment and directory, and the lines that set them after the login profile.

Command and environment are passed in variables, not in scripts: all users of a sandbox can read command lines, and
`pkill -f` with words of the command would match its own supervisor.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.home import at_home
from ags_flows.errors import ConfigurationError, InvalidRequestError
from ags_flows.models.checks import LONGEST_VALUE, MOST_VALUES, SET_BY_BASH, check_size

NOT_STARTED = 125
"""Exit code of a command that was not reached: its input is lost, or its profile does not allow it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Set ags_unusable to the reason why a command cannot start in its directory. The scripts start in the user's home, but
# a profile may change the directory.
DIRECTORY = r"""
case $AGS_FLOWS_CWD in "" | /*) ;; *) AGS_FLOWS_CWD=$PWD/$AGS_FLOWS_CWD ;; esac
ags_unusable=
if [ -z "$AGS_FLOWS_CWD" ]; then :; elif [ ! -d "$AGS_FLOWS_CWD" ]; then ags_unusable=missing
elif [ ! -x "$AGS_FLOWS_CWD" ]; then ags_unusable=closed; fi
"""

# The file descriptor by which a shell learns whether the login profile of its child let the command begin: the child
# reads the line after the profile. Profiles use small numbers, and round ones.
_READ = r"{ builtin read -r -u 237 _; builtin exec 237<&-; } 2>/dev/null"

# ags_begin_profile is called before the child is started. ags_check_profile is called after its end, with its exit code
# in ags_code: a command that was not started has not succeeded, also after `exit 0`.
PROFILE = rf"""
ags_begin_profile() {{ {{ exec 237<<<unread; }} 2>/dev/null; }}
ags_check_profile() {{
  {{ read -r -u 237 _; }} 2>/dev/null || return 0
  echo "The shell ended in the login profile with exit code $ags_code. The command was not started." >&2
  [ "$ags_code" != 0 ] || ags_code={NOT_STARTED}
}}
"""

# The first lines after the login profile. They use no arguments, which a profile may replace. The caller's environment
# and directory take precedence over the profile's, whatever functions, aliases, options and attributes it has defined.
# In POSIX mode, no function replaces `trap` and `unset`; the backslashes prevent aliases. Traps on DEBUG and RETURN
# would act between these lines and the command. The lines are not traced: after `set -x` in a profile, the values of
# secrets would be printed.
_SAVE = (
    r"{ AGS_FLOWS_OPTIONS=$- AGS_FLOWS_MORE=$BASHOPTS POSIXLY_CORRECT=${POSIXLY_CORRECT-ags}; \set +vxk; } 2>/dev/null"
)
_PROLOGUE = rf"""{_SAVE}
\trap - DEBUG RETURN
\unset -f builtin; \builtin [ "$POSIXLY_CORRECT" != ags ] || \unset POSIXLY_CORRECT; \builtin shopt -u expand_aliases
{_READ}
AGS_FLOWS_REFUSE() {{ builtin echo "$1. The command was not started." >&2; builtin exit {NOT_STARTED}; }}
AGS_FLOWS_SET() {{
  AGS_FLOWS_NAME=${{1%%=*}}
  {{ builtin unset -n "$AGS_FLOWS_NAME"; builtin unset -v "$AGS_FLOWS_NAME"; builtin export "$1"; }} 2>/dev/null || :
  [[ ${{!AGS_FLOWS_NAME-}} == "${{1#*=}}" ]] ||
    AGS_FLOWS_REFUSE "env: the login profile does not allow to set $AGS_FLOWS_NAME"
}}
AGS_FLOWS_OWN="env: the login profile does not allow to set names that begin with AGS_FLOWS_"
builtin declare AGS_FLOWS_OPTIONS="$AGS_FLOWS_OPTIONS" AGS_FLOWS_MORE="$AGS_FLOWS_MORE" AGS_FLOWS_OWN="$AGS_FLOWS_OWN" \
  AGS_FLOWS_PIECE= AGS_FLOWS_NAME= AGS_FLOWS_TEXT= AGS_FLOWS_FORMAT= || AGS_FLOWS_REFUSE "$AGS_FLOWS_OWN"
for AGS_FLOWS_PIECE in "${{!AGS_FLOWS_ENV_@}}"; do
  builtin eval "${{!AGS_FLOWS_PIECE}}"; builtin unset "$AGS_FLOWS_PIECE" || AGS_FLOWS_REFUSE "$AGS_FLOWS_OWN"
done
[[ -z ${{AGS_FLOWS_CWD-}} ]] || builtin cd -- "$AGS_FLOWS_CWD" ||
  AGS_FLOWS_REFUSE "cwd: the login profile does not allow to enter $AGS_FLOWS_CWD"
builtin unset AGS_FLOWS_PIECE AGS_FLOWS_NAME AGS_FLOWS_CWD AGS_FLOWS_SANDBOX || AGS_FLOWS_REFUSE "$AGS_FLOWS_OWN"
"""

# On one line with the command, so that the options of the profile have no effect on these words.
_RESTORE = (
    "[[ $AGS_FLOWS_MORE != *expand_aliases* ]] || builtin shopt -s expand_aliases; "
    "[[ $AGS_FLOWS_OPTIONS != *k* ]] || builtin set -k; [[ $AGS_FLOWS_OPTIONS != *v* ]] || builtin set -v; "
)

_FORGET = "builtin set --; builtin unset -f AGS_FLOWS_SET AGS_FLOWS_REFUSE; builtin unset AGS_FLOWS_OWN"

# Runs the command in the file $AGS_FLOWS_FILE with the input in the file $AGS_FLOWS_INPUT.
FROM_FILE = f"""{_PROLOGUE}
builtin export -n AGS_FLOWS_FILE AGS_FLOWS_INPUT || AGS_FLOWS_REFUSE "$AGS_FLOWS_OWN"
[[ -r $AGS_FLOWS_INPUT ]] || AGS_FLOWS_REFUSE "stdin: the input is lost"
{_FORGET}
{_RESTORE}[[ $AGS_FLOWS_OPTIONS != *x* ]] || builtin set -x; builtin source "$AGS_FLOWS_FILE" <"$AGS_FLOWS_INPUT"
"""

# Runs the command in $AGS_FLOWS_COMMAND. Its input, if any, is $AGS_FLOWS_INPUT, a format for printf.
FROM_VARIABLES = rf"""{_PROLOGUE}
AGS_FLOWS_TEXT=$AGS_FLOWS_COMMAND AGS_FLOWS_FORMAT=${{AGS_FLOWS_INPUT-none}}
builtin unset AGS_FLOWS_COMMAND AGS_FLOWS_INPUT || AGS_FLOWS_REFUSE "$AGS_FLOWS_OWN"
{_FORGET}
if [[ $AGS_FLOWS_OPTIONS = *x* ]]; then AGS_FLOWS_TEXT=$'builtin set -x\n'$AGS_FLOWS_TEXT; fi
if [[ $AGS_FLOWS_FORMAT = none ]]; then
  {_RESTORE}builtin eval "$AGS_FLOWS_TEXT"
else
  {_RESTORE}
  builtin eval "$AGS_FLOWS_TEXT" < <(\builtin printf "$AGS_FLOWS_FORMAT")
fi
"""


def start_environment(command: str | None, env: Mapping[str, str], cwd: str | None = None) -> dict[str, str]:
    """Return the environment of the start script, which contains the command and the command's environment.

    The command's variables are encoded, so that they do not change variables of the script, such as `HOME` or `PATH`.

    Args:
        command: The command; None if it was uploaded.
        env: The command's environment.
        cwd: The command's working directory, absolute or relative to the user's home.

    Raises:
        ConfigurationError: A value, or all together, are longer than Linux allows.
    """
    carried = {} if command is None else {"AGS_FLOWS_COMMAND": command}
    if cwd:
        carried["AGS_FLOWS_CWD"] = cwd
    pieces = [""]
    for name, value in env.items():
        check_size(name, value)
        if not _NAME.fullmatch(name) or name in SET_BY_BASH:
            # A shell cannot set this name, and does not use it.
            carried[name] = value
            continue
        line = f"AGS_FLOWS_SET {name}={shlex.quote(value)}\n"
        if len(pieces[-1]) + len(line) > LONGEST_VALUE:
            pieces.append("")
        pieces[-1] += line
    carried.update({f"AGS_FLOWS_ENV_{number}": piece for number, piece in enumerate(pieces) if piece})
    if (total := sum(len(value.encode()) for value in carried.values())) > MOST_VALUES:
        raise ConfigurationError(
            f"env: command and variables have {total:,} bytes together, more than {MOST_VALUES:,}.",
            hint="Upload them as a file, or pass them as stdin.",
        )
    return carried


def directory_of(cwd: str | None) -> str:
    """Return a working directory relative to the user's home, in which the scripts start, or an absolute one."""
    return "" if cwd in (None, "", "~") else at_home(cwd)


def existing_directory(plane: DataPlane, cwd: str) -> str:
    """Return the absolute path of a directory in a sandbox.

    Raises:
        InvalidRequestError: There is no such directory.
    """
    script = f'AGS_FLOWS_CWD={shlex.quote(directory_of(cwd) or ".")}\n{DIRECTORY}\necho "$ags_unusable $AGS_FLOWS_CWD"'
    unusable, _, path = plane.script(script).stdout.removesuffix("\n").partition(" ")
    if unusable == "missing":
        raise InvalidRequestError(
            f"cwd: there is no directory {cwd!r} in {plane.instance_id}.",
            hint="Create the directory first, or use another one.",
        )
    return posixpath.normpath(path)


def unusable_directory(instance_id: str, cwd: str | None, why: str) -> InvalidRequestError:
    """Return the error of a command that cannot start in its directory.

    Args:
        instance_id: The sandbox.
        cwd: The directory.
        why: What `DIRECTORY` has set.
    """
    if why == "closed":
        return InvalidRequestError(
            f"cwd: the user must not enter {cwd!r} in {instance_id}; the command was not started.",
            hint='Use another directory, or user="root".',
        )
    return InvalidRequestError(
        f"cwd: there is no directory {cwd!r} in {instance_id}; the command was not started.",
        hint="Create the directory first, or use another one.",
    )
