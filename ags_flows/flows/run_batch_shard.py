"""The flow of one shard of a batch: `run_batch(shards=...)` starts it as runs of a deployment."""

from typing import Any

from prefect import flow

from ags_flows.batch.shards import FLOW
from ags_flows.batch.slices import items_at
from ags_flows.batch.work import Work
from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.flows.batch_progress import ShardObserver
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.run_items import do_batch
from ags_flows.models import BatchOptions, BatchReport
from ags_flows.models.batch import OnCrash


@flow(
    name=FLOW,
    description="One part of a batch that runs on several machines. Started by run-batch, not by hand.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def run_batch_shard(
    location: str,
    work: dict[str, Any],
    options: dict[str, Any],
    tool: str,
    config: ConfigChoice = "",
    on_crash: OnCrash = "lease",
) -> BatchReport:
    """Do the items of one shard of a batch.

    Args:
        location: The results location of the shard, which all workers can read and write. Its items are there.
        work: What is done with each item: `command` or `function`, and the options of the command.
        options: How it is done: fields of `ags_flows.models.BatchOptions`.
        tool: A tool's id or name.
        config: An AGS Config block, or its name. Empty: the environment of the worker.
        on_crash: What becomes of the sandboxes when this process is killed, as of `run_batch`.

    Returns:
        The report of the items.

    Raises:
        ConfigurationError: The location has no items on this machine.

    Example:
        ```python
        run_batch_shard.to_deployment("machines", work_pool_name="machines")
        ```
    """
    chosen = BatchOptions(**options, results=location, task_runs="none", fail_above=1.0, on_crash=on_crash)
    return do_batch(
        items_at(location), Work.of(work), tool, chosen, resolve_config(config), observer=ShardObserver(location)
    )
