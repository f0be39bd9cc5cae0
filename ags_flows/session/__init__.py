"""Sessions: a running sandbox for the length of a block, in synchronous and in asynchronous code."""

from ags_flows.session.asynchronous import AsyncSandboxSession
from ags_flows.session.context import OnCrash, SandboxContext, sandbox_session
from ags_flows.session.opening import OnFailure, Opening
from ags_flows.session.session import SandboxSession
from ags_flows.session.tool import make_tool

__all__ = [
    "AsyncSandboxSession",
    "OnCrash",
    "OnFailure",
    "Opening",
    "SandboxContext",
    "SandboxSession",
    "make_tool",
    "sandbox_session",
]
