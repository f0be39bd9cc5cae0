"""SWE-ReX over AGS: an agent's shells run in a sandbox. Needs the extra `swerex`.

`AGSDeployment` is a deployment for whatever speaks SWE-ReX; `swerex_session` and `run_in_shell` are the same as steps
of a flow.
"""

import importlib.util

if importlib.util.find_spec("swerex") is None:
    raise ModuleNotFoundError(
        "ags_flows.swerex needs the package swe-rex: pip install 'ags-flows[swerex]'", name="swerex"
    )

from ags_flows.swerex.config import SERVER_COMMAND, AGSDeploymentConfig
from ags_flows.swerex.deployment import AGSDeployment
from ags_flows.swerex.runtime import GatewayRuntime
from ags_flows.swerex.server import SwerexServer, connect, open_deployment
from ags_flows.swerex.session import swerex_session
from ags_flows.swerex.shell import run_in_shell

__all__ = [
    "SERVER_COMMAND",
    "AGSDeployment",
    "AGSDeploymentConfig",
    "GatewayRuntime",
    "SwerexServer",
    "connect",
    "open_deployment",
    "run_in_shell",
    "swerex_session",
]
