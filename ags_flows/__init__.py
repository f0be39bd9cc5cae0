"""Prefect tasks and flows for Tencent Cloud Agent Sandbox (AGS), with an emulator of AGS on one machine.

Tasks stand in `ags_flows.tasks`, flows in `ags_flows.flows`, values in `ags_flows.models`, the emulator for tests in
`ags_flows.testing`. Importing this package is cheap: the SDKs are loaded by the first call that needs them.
"""

from typing import TYPE_CHECKING, Any

from ags_flows.blocks import AGSConfig, TencentCloudCredentials
from ags_flows.errors import AGSFlowsError
from ags_flows.job import SandboxJob

if TYPE_CHECKING:
    from ags_flows.functions import SandboxFile, in_sandbox
    from ags_flows.runtime import AGSRuntime
    from ags_flows.session import SandboxSession, sandbox_session

__all__ = [
    "AGSConfig",
    "AGSFlowsError",
    "AGSRuntime",
    "SandboxFile",
    "SandboxJob",
    "SandboxSession",
    "TencentCloudCredentials",
    "in_sandbox",
    "sandbox_session",
]

_LAZY = {
    "AGSRuntime": "ags_flows.runtime",
    "SandboxFile": "ags_flows.functions",
    "SandboxSession": "ags_flows.session",
    "in_sandbox": "ags_flows.functions",
    "sandbox_session": "ags_flows.session",
}


def __getattr__(name: str) -> Any:
    """Load what needs tasks at first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
