"""Bash without a login profile, for the scripts of this package: the only use of the SDK's process client.

The SDK runs every command by `bash -l -c`. A profile may print, change directory, take seconds or end the shell, which
users expect for their commands, and which must not happen to our scripts.
"""

from __future__ import annotations

import copy
from typing import Any

ARGUMENTS = ["-p", "-c"]
"""`-p`: bash reads neither a profile nor the file that BASH_ENV names, and takes no functions from the environment."""


def without_profile(commands: Any) -> Any:
    """Return a copy of an SDK sandbox's `commands` whose `run` starts bash without a profile."""
    copied = copy.copy(commands)
    copied._rpc = _WithoutProfile(commands._rpc)
    return copied


class _WithoutProfile:
    """The SDK's process client, with other arguments of bash."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc, name)

    def start(self, request: Any, **options: Any) -> Any:
        """Start a process of the SDK's request: `bash -l -c TEXT`."""
        process = request.process
        if list(process.args[:2]) != ["-l", "-c"]:
            raise RuntimeError(f"This e2b SDK starts commands by {list(process.args[:-1])}, not by bash -l -c.")
        process.args[:2] = ARGUMENTS
        return self._rpc.start(request, **options)
