"""Python functions that run in sandboxes: `@in_sandbox`, and `sandbox.call` in an open session.

The source of a function is sent, its arguments and its result cross as JSON, and the call is a durable command.
"""

from ags_flows.functions.call import FunctionOptions, RemoteFunction, call_function
from ags_flows.functions.decorator import in_sandbox, is_remote, remote_function
from ags_flows.functions.values import SandboxFile

__all__ = [
    "FunctionOptions",
    "RemoteFunction",
    "SandboxFile",
    "call_function",
    "in_sandbox",
    "is_remote",
    "remote_function",
]
