"""Packages that a function needs: installed once in a sandbox, and kept in a snapshot that other sandboxes start from.

A list of packages has its own directory in the sandbox, named by a digest of the list, which comes before everything
else on the path. It is installed aside and renamed: it is there as a whole or not at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from packaging.requirements import InvalidRequirement, Requirement

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, ConfigurationError, UnsupportedError
from ags_flows.functions.guest import OLDEST
from ags_flows.models import Instance, Snapshot
from ags_flows.ownership import MANAGED_BY, MANAGED_BY_KEY, digest
from ags_flows.run.logs import run_logger
from ags_flows.tasks import exec_command

REMOTE = ".ags_flows/packages"
INSTALL_TIMEOUT = 1800.0
SHOWN = 1_500

_INSTALL = """\
# pip install {packages}
python=$(command -v python3 || command -v python) || exit 127
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < {oldest})')
is_old=$?
[ -n "$version" ] || exit 123
[ $is_old = 0 ] || {{ echo "$version" >&2; exit 124; }}
"$python" -m pip --version >/dev/null 2>&1 || exit 126
mkdir -p {root} && made=$(mktemp -d {root}/.new.XXXXXX) || exit 125
for pause in 2 10 ''; do
  "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off -q --target "$made" {packages} \
    2>"$made.errors"
  code=$?
  # An index that is away may be back soon.
  [ $code != 0 ] && [ -n "$pause" ] && grep -q 'connection broken by' "$made.errors" || break
  sleep $pause
done
cat "$made.errors" >&2; rm -f "$made.errors"
if [ $code = 0 ]
then mv -T "$made" {target} 2>/dev/null || rm -rf "$made"; [ -d {target} ]
else rm -rf "$made"; exit $code
fi
"""


def check_packages(packages: Sequence[str]) -> tuple[str, ...]:
    """Return a list of requirements in the order in which it was given.

    Raises:
        ConfigurationError: One is not a requirement such as `pandas==2.2.3`.
    """
    if isinstance(packages, str):
        raise ConfigurationError(f"packages: give a list, got the text {packages!r}.")
    for one in packages:
        try:
            Requirement(one)
        except InvalidRequirement as error:
            raise ConfigurationError(
                f"packages: {one!r} is not a requirement: {str(error).splitlines()[0]}.", hint="Write pandas==2.2.3."
            ) from None
    return tuple(packages)


def packages_key(packages: Sequence[str]) -> str:
    """Return the name of the directory of a list of packages, empty for none."""
    return digest(*sorted(packages)) if packages else ""


def packages_path(key: str) -> str:
    """Return the directory of a list of packages in the sandbox, relative to the user's home."""
    return f"{REMOTE}/{key}"


def install(
    plane: DataPlane,
    instance: Instance,
    packages: Sequence[str],
    *,
    env: Mapping[str, str],
    secrets: Mapping[str, str],
    config: AGSConfig,
) -> bool:
    """Install packages in a sandbox, unless it has them; return whether they were installed now.

    Raises:
        ConfigurationError: pip cannot install them.
        UnsupportedError: The image has no Python, one that is too old or does not start, or no pip.
    """
    target = packages_path(packages_key(packages))
    if persistently(lambda: plane.exists(target)):
        return False
    run_logger().info("Installing %s in sandbox %s", ", ".join(packages), instance.id)
    script = _INSTALL.format(
        root=REMOTE, target=target, packages=" ".join(shlex.quote(package) for package in packages), oldest=OLDEST
    )
    result = exec_command.fn(
        instance, script, timeout=INSTALL_TIMEOUT, env=env, secrets=secrets, log_output=False, config=config
    )
    if result.ok:
        return True
    # A later attempt tries again.
    journal = result.journal
    if journal is not None:
        persistently(lambda: plane.remove(journal))
    if result.exit_code == 124:
        version = result.stderr.strip()
        raise UnsupportedError(
            f"packages: the sandbox has Python {version}.", hint="Choose an image with Python 3.8 or later."
        )
    if result.exit_code == 123:
        reason = result.stderr.strip()[-SHOWN:]
        raise UnsupportedError(f"packages: the sandbox's Python does not start:\n{reason}")
    if result.exit_code in (126, 127):
        lacking = "pip" if result.exit_code == 126 else "Python"
        raise UnsupportedError(
            f"packages: the sandbox's image has no {lacking}.", hint="Choose an image with Python and pip."
        )
    raise ConfigurationError(
        f"packages: pip cannot install {', '.join(packages)} (exit code {result.exit_code}):\n"
        + (result.stderr or result.stdout).strip()[-SHOWN:]
    )


def snapshot_name(tool: str, packages: Sequence[str]) -> str:
    """Return the name of the snapshot of a tool's sandbox that has the packages."""
    return f"fn-{digest(tool, *sorted(packages))}"


def find_snapshot(control: ControlPlane, name: str) -> Snapshot | None:
    """Return a snapshot that sandboxes can be started from, None if there is none.

    Raises:
        AGSFlowsError: The account has no snapshots.
    """
    known = persistently(control.list_snapshots)
    return next((one for one in known if one.name == name and one.status == "ACTIVE"), None)


def keep_snapshot(control: ControlPlane, instance: Instance, name: str) -> None:
    """Save the disk of a sandbox that has the packages. Without a snapshot each sandbox installs them."""
    try:
        control.create_snapshot(instance.id, name=name, tags={MANAGED_BY_KEY: MANAGED_BY})
    except AGSFlowsError as error:
        run_logger().info("The installed packages cannot be kept in a snapshot: %s", error)
