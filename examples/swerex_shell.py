"""Two steps in one interactive shell: what the first leaves behind (a directory, a variable), the second finds.

python examples/swerex_shell.py
"""

from __future__ import annotations

from prefect import flow

from ags_flows.flows import stop_sandboxes
from ags_flows.models import ToolSpec
from ags_flows.swerex import AGSDeploymentConfig, run_in_shell, swerex_session

TOOL = ToolSpec(
    name="swerex-example",
    type="swebench",
    image="swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest",
    image_registry_type="system",
)


@flow(on_cancellation=[stop_sandboxes], log_prints=True)
def look_around() -> str:
    """Prepare a shell, and use it."""
    with swerex_session(AGSDeploymentConfig(tool=TOOL, lease="2m")) as server:
        run_in_shell(server, "mkdir -p /tmp/work && cd /tmp/work && export GREETING=hello", check=True)
        told = run_in_shell(server, 'echo "$GREETING from $PWD"', check=True).stdout.strip()
    print(told)
    return told


if __name__ == "__main__":
    look_around()
