"""`run_items()`: many items through a pool of sandboxes, inside of a flow of your own. `run_batch` is a flow of it."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from ags_flows import tasks
from ags_flows.batch.claim import claimed
from ags_flows.batch.items import Items, read_items
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.location import location_of
from ags_flows.batch.pool import Order, Pool
from ags_flows.batch.runner import Limits, Runner, open_gate
from ags_flows.batch.storage import Storage, result_storage, storage_at
from ags_flows.batch.work import Function, Work
from ags_flows.blocks import AGSConfig
from ags_flows.errors import AGSFlowsError, BatchFailedError, ConfigurationError
from ags_flows.flows.batch_progress import Observer, TaskRuns, item_task
from ags_flows.flows.concurrency import limited_by, paced_by
from ags_flows.models import BatchReport, Tool, ToolSpec
from ags_flows.ownership import fingerprint
from ags_flows.run.holder import Execution, current_execution, owner
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, ending_of
from ags_flows.run.secrets import load_secrets
from ags_flows.run.task_options import as_step
from ags_flows.session import OnCrash, make_tool
from ags_flows.tasks.tools import tool_id

MOST_SANDBOXES = 100
"""How many at once, where nobody says: a thread each, and more than one process feeds with short items."""

SHOWN_FAILURES = 100
POLL = 1.0


def run_items(
    items: Sequence[Any] | str | Path,
    function: Function | None = None,
    *,
    command: str | None = None,
    tool: ToolSpec | Tool | str | None = None,
    order: Callable[[Any], Order] | None = None,
    options: Mapping[str, Any] | None = None,
    sandboxes: int | None = None,
    items_per_sandbox: int | None = None,
    concurrency_limit: str | None = None,
    rate_limit: str | None = None,
    results: str | Path | Storage | None = None,
    retries: int = 2,
    retries_of_failed: int = 0,
    fail_above: float = 0.1,
    task_runs: TaskRuns = "chunks",
    lease: str | None = None,
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    step: str = "",
    config: AGSConfig | None = None,
) -> BatchReport:
    """Do something with each of many items, in a pool of sandboxes.

    What is done is noted where the results are kept, as soon as it is: a retry of the flow run, or another run with
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
        sandboxes: How many at once; by default what the account's quota leaves free, at most 100.
        items_per_sandbox: After how many items a sandbox is replaced; None for never, 1 for a fresh one each.
        concurrency_limit: A global concurrency limit of the Prefect server: each sandbox takes one slot of it, in
            all flow runs together.
        rate_limit: A global concurrency limit with a slot decay: each start of a sandbox takes one slot of it.
        results: Where results and progress are kept: a local path, or a URL that fsspec knows (`s3://...`); by
            default the result storage of the flow run.
        retries: How often an item is tried again after a failure of the sandbox or the cloud.
        retries_of_failed: How often an item is tried again that itself failed.
        fail_above: The part of the items that may fail, 0 to 1. As soon as more have failed, the batch ends.
        task_runs: `chunks`: a task run for every hundred items or so; `items`: one for each item, and for each step
            of it; `none`.
        lease: How long sandboxes outlive this process, `30s` to `24h`.
        on_crash: As of `sandbox_session`.
        delete_tool: Delete the tool afterwards; by default only one that was created here.
        step: Tells batches of one flow run apart that do the same with items of the same source.
        config: Where AGS is; by default from the environment.

    Returns:
        What became of the items; failed ones are listed, and all are in `results`.

    Raises:
        BatchFailedError: More items failed than may.
        ConfigurationError: No items, unreadable items, no quota, no such limit, ...; nothing was started.

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
    config = config or AGSConfig()
    work = Work(command=command, function=function, options=dict(options or {}))
    load_secrets(work.options.get("secrets"))
    _check(sandboxes, items_per_sandbox, fail_above, retries, retries_of_failed)
    reference = tool if tool is not None else config.tool_id
    if not reference and order is None:
        raise ConfigurationError("No tool is given.", hint="Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...).")
    read = read_items(items)
    # 0.29 of 100 is 29, and not 28 as the product of the floats would have it.
    may_fail = math.floor(round(fail_above * len(read.all), 6))
    started = time.monotonic()
    execution = _execution(work, items, step)
    storage = storage_for(results)
    if results is None:
        storage, number = location_of(storage, execution.step("run_items", {}))
        execution = _at(execution, str(number))
    else:
        execution = _at(execution, str(results) if isinstance(results, (str, Path)) else storage.where(""))
    with claimed(storage, execution.frames[0].id, run_logger()):
        ledger = Ledger(storage, read.all)
        observer = Observer(read.all, task_runs)
        pool = Pool(config, execution, lease=lease, logger=run_logger())
        size = _size(sandboxes, len(read.all) - len(ledger.resumed), pool)
        gate, most = limited_by(concurrency_limit) if concurrency_limit else (open_gate, size)
        gate = paced_by(rate_limit, gate) if rate_limit else gate
        ledger.prepare()
        if ledger.resumed:
            run_logger().info("%d of %d items were done before", len(ledger.resumed), len(read.all))
        made = _Tool(config, reference, delete_tool)
        runner: Runner | None = None
        try:
            name = made.make() if reference else ""
            runner = Runner(
                read.all,
                work,
                lambda item: order(item.value) if order else Order(name),
                pool,
                ledger,
                Limits(
                    sandboxes=min(size, most),
                    items_per_sandbox=items_per_sandbox,
                    retries=retries,
                    retries_of_failed=retries_of_failed,
                    failures=may_fail,
                ),
                execution=execution,
                logger=run_logger(),
                gate=gate,
                attempt=item_task if task_runs == "items" and FlowRunContext.get() else lambda turn, do: do(),
                inherit_context=task_runs == "items",
            )
            observer.announce(runner.done)
            runner.start()
            observer.watch(runner)
        except BaseException as error:
            if runner is not None:
                runner.stop()
            ending = ending_of(error)
            _end(pool, made, "cancelled" if ending == "crashed" and on_crash == "stop" else ending)
            raise
        _end(pool, made, "completed")
        report = _report(read, ledger, pool, time.monotonic() - started)
        undone = report.items - report.succeeded - report.failed
        failed = report.failed > may_fail or undone > 0
        observer.report(report, sorted(ledger.results.values(), key=lambda result: result.index), failed)
        if failed:
            raise _failure(report, fail_above, may_fail, undone)
        return report


def _report(read: Items, ledger: Ledger, pool: Pool, seconds: float) -> BatchReport:
    done = ledger.results.values()
    failures = sorted((result for result in done if result.status == "failed"), key=lambda result: result.index)
    return BatchReport(
        items=len(read.all),
        succeeded=len(done) - len(failures),
        failed=len(failures),
        duplicates=read.duplicates,
        resumed=len(ledger.resumed),
        failures=tuple(failures[:SHOWN_FAILURES]),
        results=ledger.write_results(),
        sandboxes=pool.most,
        started=pool.started,
        seconds=round(seconds, 3),
    )


def _failure(report: BatchReport, fail_above: float, may_fail: int, undone: int) -> BatchFailedError:
    first = "; ".join(f"{one.key}: {one.error.splitlines()[0]}" for one in report.failures[:3] if one.error)
    return BatchFailedError(
        f"{report.failed} of {report.items} items failed"
        + (f", more than the {fail_above:.0%} that may" if report.failed > may_fail else "")
        + (f"; {undone} were not begun any more" if undone else "")
        + (f". {first}." if first else "."),
        hint=f"All results are in {report.results}. A retry does what is not done.",
        report=report,
    )


def _end(pool: Pool, made: _Tool, ending: Ending) -> None:
    if ending in ("crashed", "suspended", "superseded"):
        # A retry of this run takes the sandboxes over; otherwise their leases end them.
        pool.leave()
        return
    pool.end()
    made.delete(quietly=ending == "cancelled")


class _Tool:
    """The tool of a batch, created where that was asked for."""

    def __init__(self, config: AGSConfig, tool: ToolSpec | Tool | str, delete: bool | None) -> None:
        self._config = config
        self._tool = tool
        self._delete = isinstance(tool, ToolSpec) if delete is None else delete
        self._made: Tool | None = None

    def make(self) -> str:
        """Return the id of the tool, once it is ACTIVE."""
        tool = self._tool
        if isinstance(tool, ToolSpec):
            ready = make_tool(tool, self._config, for_run=self._delete, steps=[], on_created=self._keep)
        else:
            known = self._found(tool)
            ready = known if known and known.ready else as_step(tasks.wait_tool_active)(tool, config=self._config)
        self._keep(ready)
        return ready.id

    def _keep(self, tool: Tool) -> None:
        self._made = tool

    def _found(self, tool: Tool | str) -> Tool | None:
        try:
            return self._config.control_plane().get_tool(tool_id(tool))
        except AGSFlowsError:
            # The step that waits raises it, and is retried where that helps.
            return None

    def delete(self, quietly: bool) -> None:
        """Delete it, if it is to be deleted."""
        if self._delete and self._made is not None:
            # A run that is being cancelled gets no new task runs.
            end = tasks.cleanup.fn if quietly else as_step(tasks.cleanup)
            end(None, self._made, config=self._config)


def _check(
    sandboxes: int | None, items_per_sandbox: int | None, fail_above: float, retries: int, retries_of_failed: int
) -> None:
    for name, value in (("sandboxes", sandboxes), ("items_per_sandbox", items_per_sandbox)):
        if value is not None and value < 1:
            raise ConfigurationError(f"{name}={value}: at least 1.", hint="Leave it out for the default.")
    for name, count in (("retries", retries), ("retries_of_failed", retries_of_failed)):
        if count < 0:
            raise ConfigurationError(f"{name}={count} is negative.", hint="0 is for no retry.")
    if not 0 <= fail_above <= 1:
        raise ConfigurationError(f"fail_above={fail_above} is no part of the items.", hint="0 is for none, 1 for all.")


def _size(asked: int | None, undone: int, pool: Pool) -> int:
    free = pool.free_quota()
    if asked is not None:
        # What AGS refuses meanwhile is waited for.
        return min(asked, undone)
    return min(MOST_SANDBOXES, undone) if free is None else max(1, min(free, undone, MOST_SANDBOXES))


def _execution(work: Work, items: Sequence[Any] | str | Path, step: str) -> Execution:
    """Return the execution of a batch. Its place is what it does: another batch of the same run has another one."""
    source = str(items) if isinstance(items, (str, Path)) else ""
    function = getattr(work.function, "__qualname__", type(work.function).__qualname__)
    base = current_execution().rooted()
    return replace(base, place=base.place.within("run_items", fingerprint([work.command, function, source, step])))


def _at(execution: Execution, results: str) -> Execution:
    """Return the execution of the batch with these results: equal batches of one run do not share their sandboxes."""
    return replace(execution, place=execution.place.within("results", results))


def storage_for(results: str | Path | Storage | None) -> Storage:
    """Return where a batch keeps what it knows: by default in the result storage of the flow run that is executing."""
    if isinstance(results, (str, Path)):
        return storage_at(str(results))
    if results is not None:
        return results
    context = FlowRunContext.get()
    filesystem = context.result_store.result_storage if context is not None else None
    return result_storage(filesystem, f"ags-flows/batches/{owner().flow_run_id or f'local-{uuid.uuid4()}'}/")
