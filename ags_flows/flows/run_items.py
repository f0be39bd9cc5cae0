"""`run_items()`: many items through a pool of sandboxes, inside of your flow. `run_batch` is the same as a flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from ags_flows.batch.claim import claimed
from ags_flows.batch.functions import Function
from ags_flows.batch.identity import identity_of
from ags_flows.batch.items import Items, read_items
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.limits import limited_by, open_gate, paced_by
from ags_flows.batch.place import BatchPlace, place_of
from ags_flows.batch.plan import Plan, plainly
from ags_flows.batch.pool import MOST_SANDBOXES, Order, Pool
from ags_flows.batch.reports import SHOWN_FAILURES, log_unlisted, may_fail
from ags_flows.batch.runner import Runner
from ags_flows.batch.storage import ResultsError
from ags_flows.batch.tool import BatchTool
from ags_flows.batch.work import COMMAND_OPTIONS, Work
from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.errors import (
    ConfigurationError,
    InstanceGoneError,
    WaitCancelledError,
)
from ags_flows.flows.batch_progress import Observer, concluded, item_task
from ags_flows.models import BatchOptions, BatchReport, Tool, ToolSpec
from ags_flows.run.interruption import interruptible
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, enclosing_run
from ags_flows.run.secrets import load_secrets


def run_items(
    items: Sequence[Any] | str | Path,
    function: Function | None = None,
    *,
    command: str | None = None,
    tool: ToolSpec | Tool | str | None = None,
    order: Callable[[Any], Order] | None = None,
    options: Mapping[str, Any] | None = None,
    config: AGSConfig | str | None = None,
    **settings: Any,
) -> BatchReport:
    """Do something with each of many items, in a pool of sandboxes.

    What is done is recorded where the results are kept, as soon as it is: a retry of the flow run, or another run with
    the same `results`, goes on with what is not. Items that were being worked on when the process died are found in
    their sandbox again, if that still lives, and are not done twice in it.

    Args:
        items: JSON values, or the path of a JSON Lines file, or of a directory whose files are the items.
        function: Called with a `SandboxSession` and the item, in a thread; returns something JSON-like. What it
            raises is the item's failure, except for failures of the sandbox or the cloud, which are retried.
        command: Instead of a function, a shell command, see `ags_flows.batch.work.Work`.
        tool: A `ToolSpec` to create, a tool, its name or id; by default the configuration's `tool_id`.
        order: Which sandbox an item needs, where not all need the same; called with the item.
        options: Of the command: `timeout`, `cwd`, `user`, `env`, `secrets`, `durable`.
        config: Where AGS is, or the name of a saved block; by default the environment.
        settings: How it is done: the fields of `ags_flows.models.BatchOptions`, such as `sandboxes`, `results`,
            `retries` and `fail_above`.

    Returns:
        The report of the items; failed ones are listed, and all are in `results`.

    Raises:
        BatchFailedError: More items failed than may.
        ConfigurationError: No items, unreadable items, no quota, no such limit, the results of another batch, ...;
            nothing was started.

    Example:
        ```python
        def evaluate(sandbox, item):
            sandbox.write("patch.diff", item["patch"])
            return {"passed": sandbox.run("git apply patch.diff && ./run_tests.sh").ok}


        @flow(on_cancellation=[stop_sandboxes])
        def nightly():
            return run_items("items.jsonl", evaluate, tool="swebench-v1", results="runs/tonight")
        ```
    """
    if of_command := sorted(COMMAND_OPTIONS & settings.keys()):
        raise ConfigurationError(
            f"run_items takes {', '.join(of_command)} in options={{...}}, with all other options of the command.",
            hint="Nothing was started.",
        )
    chosen = BatchOptions(**settings)
    hidden = load_secrets((options or {}).get("secrets"))
    work = Work(command=command, function=function, options=dict(options or {}), hidden=hidden)
    return do_batch(checked_items(items, work), work, tool, chosen, resolve_config(config), order)


def checked_items(source: Sequence[Any] | str | Path, work: Work) -> Items:
    """Read the items of a batch, and check that its work can be done with each."""
    work.queued  # noqa: B018 - checks the options of the command
    read = read_items(source)
    for item in read.all:
        work.check(item)
    return read


def do_batch(
    read: Items,
    work: Work,
    tool: ToolSpec | Tool | str | None,
    options: BatchOptions,
    config: AGSConfig,
    order: Callable[[Any], Order] | None = None,
    observer: Observer | None = None,
) -> BatchReport:
    """Do a batch. See `run_items`.

    Args:
        read: The items.
        work: What is done with each.
        tool: See `run_items`.
        options: How it is done.
        config: Where AGS is.
        order: See `run_items`.
        observer: Watches the batch, by default for the Prefect UI.
    """
    reference = tool if tool is not None else config.tool_id
    if not reference and order is None:
        raise ConfigurationError("No tool is given.", hint="Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...).")
    begun, place = time.monotonic(), place_of(read, work, options)
    run = enclosing_run()
    runner: Runner | None = None

    def wake(reason: str) -> None:
        if runner is not None:
            runner.interrupt(InstanceGoneError(f"The batch was interrupted: {reason}."))

    pool = Pool(config, place.execution, lease=options.lease, logger=run_logger())
    plan = _plan(read, work, options, place, pool)
    with (
        claimed(place.storage, place.holder, run_logger(), lambda: wake("another run has taken it over")) as claim,
        interruptible(lambda: wake("its flow run ends"), run) as interruption,
    ):
        ledger = Ledger(place.storage, read.all, identity_of(read, work, options), claim.check)
        observer = observer or Observer(read.all, options.task_runs)
        if not read.is_slice:
            ledger.refuse_other_items()
        ledger.prepare()
        log_unlisted(len(ledger.unlisted), place.storage)
        if ledger.resumed:
            run_logger().info("%d of %d items were done before", len(ledger.resumed), len(read.all))
        made = BatchTool(config, reference, options.delete_tool)
        try:
            if interruption.ending is not None:
                raise WaitCancelledError("The batch was not begun, because the flow run or the process ends.")
            name = made.make() if reference else ""
            plan = replace(plan, order=lambda item: order(item.value) if order else Order(name))
            runner = Runner(plan, pool, ledger, run_logger())
            observer.announce(runner.done)
            # The location may have been lost while the tool was made.
            claim.check()
            runner.start()
            observer.watch(runner)
            report = work.masked(_report(read, ledger, pool, begun))
        except BaseException as error:
            lost = claim.lost
            ending = interruption.ending_by(lost or error)
            if interruption.ending is None and _may_come_back(lost or error):
                # A retry may find the results again, and what is done in the sandboxes.
                ending = "crashed"
            elif ending == "crashed" and options.on_crash == "stop":
                ending = "cancelled"
            try:
                if runner is not None:
                    runner.stop()
            finally:
                _end(pool, made, ending)
            if lost is not None:
                raise lost from error
            raise
        _end(pool, made, "completed")
    return concluded(report, work.masked([*ledger.shown("failed"), *ledger.shown("ok")]), observer, read, options)


def _plan(read: Items, work: Work, options: BatchOptions, place: BatchPlace, pool: Pool) -> Plan:
    """Return the plan of the batch, without the tool.

    Raises:
        ConfigurationError: A limit does not exist, or the quota is zero.
    """
    limit, size = options.concurrency_limit, options.sandboxes
    if size is None:
        free = pool.free_quota()
        size = MOST_SANDBOXES if free is None else max(1, min(free, MOST_SANDBOXES))
    by_item = options.task_runs == "items" and FlowRunContext.get() is not None
    gate, most = limited_by(limit) if limit else (open_gate, size)
    return Plan(
        items=read.all,
        work=work,
        order=lambda item: Order(""),
        options=options,
        sandboxes=min(size, most),
        failures=may_fail(read, options),
        execution=place.execution,
        gate=paced_by(options.rate_limit, gate) if options.rate_limit else gate,
        attempt=partial(item_task, work.masked) if by_item else plainly,
    )


def _report(read: Items, ledger: Ledger, pool: Pool, begun: float) -> BatchReport:
    """Write the results and return the report."""
    return BatchReport(
        items=len(read.all),
        succeeded=ledger.count("ok"),
        failed=ledger.count("failed"),
        duplicates=read.duplicates,
        resumed=len(ledger.resumed),
        unlisted=len(ledger.unlisted),
        failures=tuple(ledger.shown("failed")[:SHOWN_FAILURES]),
        results=ledger.write_results(),
        sandboxes=pool.most,
        started=pool.started,
        seconds=round(time.monotonic() - begun, 3),
    )


def _may_come_back(error: BaseException) -> bool:
    """Return whether an error is that of a results location that was not deleted."""
    return isinstance(error, ResultsError) and error.retryable


def _end(pool: Pool, made: BatchTool, ending: Ending) -> None:
    if ending in ("crashed", "suspended", "superseded"):
        # A retry of this run takes the sandboxes over; otherwise their leases end them.
        pool.leave()
        return
    pool.end()
    made.delete(quietly=ending == "cancelled")
