"""Removal of what is in a sandbox, but never of a home or of what is above it."""

from __future__ import annotations

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import ConfigurationError
from ags_flows.transfer.paths import argument, from_home, quoted

IS_HOME = 21

# A link at the path itself is removed, not what it leads to.
_CHECK = f"""
D=${{T%/*}} B=${{T##*/}}
D=$(cd -P -- "${{D:-/}}" 2>/dev/null && pwd -P) || exit 0
T=${{D%/}}/$B
[ ! -L "$T" ] || exit 0
# Whether the path is a home, or above it. The user may not be allowed to enter that home.
is_above() {{
  H=$(cd -P -- "$1" 2>/dev/null && pwd -P) || H=$1
  case $H/ in "$T"/*) return 0 ;; *) return 1 ;; esac
}}
if is_above "$HOME"; then exit {IS_HOME}; fi
# Homes of users: those of system accounts may be any directory, such as /bin.
while IFS=: read -r _ _ ID _ _ H _; do
  if [ "$ID" = 0 ] || [ "$ID" -ge 1000 ] && [ "$ID" -lt 65534 ]; then
    if is_above "$H"; then exit {IS_HOME}; fi
  fi
done </etc/passwd 2>/dev/null
exit 0
"""


def remove_path(plane: DataPlane, path: str, *, user: str | None = None) -> None:
    """Remove a file, or a directory with all that is in it. A path that is gone already is a success.

    Raises:
        ConfigurationError: It is a home, or a directory above it.
    """
    target = must_not_be_home(path)
    script = f"T={quoted(argument(target))}\n{_CHECK}"
    if plane.script(script, user=user).exit_code == IS_HOME:
        raise _refused(path)
    plane.remove(target, user=user)


def must_not_be_home(path: str) -> str:
    """Return a path without `~`, `..` and a final `/`, if it is not the home, or above it, by its text alone.

    Raises:
        ConfigurationError: It is.
    """
    target = from_home(path)
    if target in (".", "/") or target.rpartition("/")[2] == "..":
        raise _refused(path)
    return target


def _refused(path: str) -> ConfigurationError:
    return ConfigurationError(f"path: {path!r} is a home, or a directory above it.", hint="Name what is in it.")
