"""Prefect tasks and flows for Tencent Cloud Agent Sandbox (AGS), with an emulator of AGS on one machine.

Tasks are in `ags_flows.tasks`, flows in `ags_flows.flows`, values in `ags_flows.models`, the emulator for tests in
`ags_flows.testing`. Importing this package costs nothing: each name is loaded by its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ags_flows.blocks import AGSConfig, TencentCloudCredentials
    from ags_flows.errors import AGSFlowsError
    from ags_flows.functions import SandboxFile, in_sandbox
    from ags_flows.job import SandboxJob
    from ags_flows.run.awaitable import awaitable
    from ags_flows.runtime import AGSRuntime
    from ags_flows.session import AsyncSandboxSession, SandboxSession, sandbox_session

__all__ = [
    "AGSConfig",
    "AGSFlowsError",
    "AGSRuntime",
    "AsyncSandboxSession",
    "SandboxFile",
    "SandboxJob",
    "SandboxSession",
    "TencentCloudCredentials",
    "awaitable",
    "in_sandbox",
    "sandbox_session",
]

_MODULES = {
    "AGSConfig": "ags_flows.blocks",
    "AGSFlowsError": "ags_flows.errors",
    "AGSRuntime": "ags_flows.runtime",
    "AsyncSandboxSession": "ags_flows.session",
    "SandboxFile": "ags_flows.functions",
    "SandboxJob": "ags_flows.job",
    "SandboxSession": "ags_flows.session",
    "TencentCloudCredentials": "ags_flows.blocks",
    "awaitable": "ags_flows.run.awaitable",
    "in_sandbox": "ags_flows.functions",
    "sandbox_session": "ags_flows.session",
}
_PACKAGES = ("flows", "models", "tasks")


def __getattr__(name: str) -> object:
    """Load a public name, or a package with public names, at its first use."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _MODULES:
        found: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, those that are not loaded yet too."""
    return [*__all__, *_PACKAGES]
