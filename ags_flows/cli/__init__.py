"""The command `ags-flows`: what an operator does from a terminal."""

from ags_flows.cli import jobs, machine, sandboxes, setup  # noqa: F401 - each adds its commands
from ags_flows.cli.app import app, main

__all__ = ["app", "main"]
