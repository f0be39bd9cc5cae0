"""Composed flows."""

from ags_flows.flows.hooks import stop_sandboxes
from ags_flows.flows.provision_and_run import provision_and_run

__all__ = ["provision_and_run", "stop_sandboxes"]
