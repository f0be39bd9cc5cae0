"""Composed flows."""

from ags_flows.flows.hooks import stop_sandboxes
from ags_flows.flows.provision_and_run import provision_and_run
from ags_flows.flows.reap import reap

__all__ = ["provision_and_run", "reap", "stop_sandboxes"]
