"""The flow that takes many items through a pool of sandboxes."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow

from ags_flows.batch.work import Work
from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.flows.batch_progress import completed
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.names import name_of_batch
from ags_flows.flows.parameters import Pairs, Seconds, Text, Texts, ToolChoice, User
from ags_flows.flows.run_items import checked_items, do_batch
from ags_flows.flows.run_shards import Sharding, do_shards
from ags_flows.models import BatchOptions, BatchReport
from ags_flows.models.batch import OnCrash, TaskRuns
from ags_flows.run.assets import check_assets, materialize_assets

P = ParamSpec("P")
R = TypeVar("R")


class ItemsFlow(Flow[P, R]):
    """A flow whose parameter `items` is data: Prefect takes a field `$ref` for a reference to a block."""

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Check and convert all parameters; leave the items of a list as they are."""
        items = parameters.get("items")
        if not isinstance(items, (list, tuple)):
            return super().validate_parameters(parameters)
        return {**super().validate_parameters({**parameters, "items": []}), "items": list(items)}


def items_flow(**options: Any) -> Callable[[Callable[P, R]], ItemsFlow[P, R]]:
    """Make a function a flow, as Prefect's `@flow` does."""
    return lambda function: ItemsFlow(function, **options)


@items_flow(
    name="run-batch",
    flow_run_name=name_of_batch,
    description="Run a command, or a Python function, for each of many items, in a pool of sandboxes. Goes on after "
    "a crash with what is not done.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def run_batch(
    items: list[Any] | str,
    command: Text = "",
    tool: ToolChoice = "",
    config: ConfigChoice = "",
    function: Text = "",
    sandboxes: int | None = None,
    items_per_sandbox: int | None = None,
    concurrency_limit: Text = "",
    rate_limit: Text = "",
    results: Text = "",
    timeout: Seconds = 0.0,
    env: Pairs = {},
    secrets: Pairs = {},
    cwd: Text = "",
    user: User = "user",
    durable: bool = True,
    retries: int = 2,
    retries_of_failed: int = 0,
    fail_above: float = 0.1,
    task_runs: TaskRuns = "chunks",
    lease: Text = "",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    assets: Texts = [],
    shards: int = 0,
    shard_deployment: Text = "run-batch-shard/machines",
) -> BatchReport:
    """Run a command or a function for each of many items, in a pool of sandboxes.

    In the command's environment: `ITEM` (text, or JSON), `ITEM_KEY`, `ITEM_INDEX`, `ITEM_<FIELD>` for the simple
    fields of an item, and `ITEM_FILE` for items that are files or longer than 32 kB.

    Args:
        items: JSON values, or the path of a JSON Lines file or of a directory of files; thousands belong in a file.
            An item is known by its field `key`, `id` or `instance_id`, or by what it is.
        command: Run by `bash -l -c` for each item.
        tool: A tool to create (deleted afterwards), or the name or id of an existing one (kept).
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.
        function: Instead of a command: `package.module:function`, called with a session and the item.
        sandboxes: How many at the same time; empty: what the account's quota leaves free, at most 100.
        items_per_sandbox: After how many items a sandbox is replaced; empty: never; 1: a fresh one for each item.
        concurrency_limit: A global concurrency limit: each sandbox takes one slot, in all flow runs together.
        rate_limit: A global concurrency limit with a slot decay: each start of a sandbox takes one slot of it, in all
            flow runs together.
        results: Where results and progress are kept: a path, or a URL such as s3://bucket/path. Empty: the result
            storage of this run. A new run with the same place goes on with what is not done there.
        timeout: Seconds for each command, 0 for no limit.
        env: Environment of the command.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        cwd: Working directory in the sandbox. Empty: the user's home.
        user: The user that runs the command.
        durable: Commands belong to the sandbox and survive lost connections. Off is faster for very short ones: what
            a crash interrupts is then done again.
        retries: How often an item is tried again after a failure of the sandbox or the cloud.
        retries_of_failed: How often an item is tried again that itself failed.
        fail_above: The part of the items that may fail, 0 to 1.
        task_runs: `chunks`: a task run for every hundred items or so; `items`: one for each item; `none`.
        lease: How long sandboxes outlive this process if it dies, `30s` to `24h`.
        on_crash: What happens to the sandboxes when this process is killed: left to a retry and to their `lease`, or
            `stop`.
        delete_tool: By default true for a tool that this run created.
        assets: Keys of the Prefect assets that the batch produces, materialized if not too many items failed.
        shards: Number of flow runs of `shard_deployment` that share the items. The workers of its work pool execute
            them, on as many machines as there are. `results` must be a location that all of them can read and
            write, and `config` a saved block. `sandboxes` is the number of all shards together,
            one for each at least. 0: no shards.
        shard_deployment: The deployment of the flow `run_batch_shard`.

    Returns:
        The report of the items.

    Raises:
        BatchFailedError: More items failed than may.
        ConfigurationError: The items or a setting are wrong; nothing was started.

    Example:
        ```python
        report = run_batch(["north", "south"], 'echo "$ITEM"', tool=ToolSpec(name="regions", image="python:3.11"))
        print(report.succeeded, report.results)
        ```
    """
    settings = {
        "command": command,
        "function": function,
        "timeout": timeout,
        "env": env,
        "secrets": secrets,
        "cwd": cwd,
        "user": user,
        "durable": durable,
    }
    check_assets(assets)
    work = Work.of(settings)
    options = BatchOptions(
        sandboxes=sandboxes,
        items_per_sandbox=items_per_sandbox,
        concurrency_limit=concurrency_limit or None,
        rate_limit=rate_limit or None,
        results=results or None,
        retries=retries,
        retries_of_failed=retries_of_failed,
        fail_above=fail_above,
        task_runs=task_runs,
        lease=lease or None,
        on_crash=on_crash,
        delete_tool=delete_tool,
    )
    read, chosen = checked_items(items, work), resolve_config(config)
    if shards:
        sharding = Sharding(shards, shard_deployment, settings)
        report = do_shards(read, work, tool or None, options, chosen if config else None, sharding)
    else:
        report = do_batch(read, work, tool or None, options, chosen)
    materialize_assets(assets, report.model_dump(mode="json", include={"items", "succeeded", "failed", "results"}))
    return completed(report)
