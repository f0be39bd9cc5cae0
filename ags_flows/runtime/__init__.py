"""AGS as one plain Python object, for scripts and notebooks that have no flow, and for users of the older tool."""

from ags_flows.runtime.background import BackgroundCommand
from ags_flows.runtime.facade import AGSRuntime

__all__ = ["AGSRuntime", "BackgroundCommand"]
