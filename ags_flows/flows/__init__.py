"""Composed flows."""

from ags_flows.flows.hooks import stop_sandboxes
from ags_flows.flows.provision_and_run import provision_and_run
from ags_flows.flows.reap import reap
from ags_flows.flows.run_batch import run_batch
from ags_flows.flows.run_batch_shard import run_batch_shard
from ags_flows.flows.run_items import run_items
from ags_flows.flows.run_job import run_job
from ags_flows.flows.swebench import swebench_evaluate
from ags_flows.flows.sync_tools import sync_tools
from ags_flows.flows.usage_report import usage_report

__all__ = [
    "provision_and_run",
    "reap",
    "run_batch",
    "run_batch_shard",
    "run_items",
    "run_job",
    "stop_sandboxes",
    "swebench_evaluate",
    "sync_tools",
    "usage_report",
]
