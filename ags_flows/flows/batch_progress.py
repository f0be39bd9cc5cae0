"""How a batch shows in the Prefect UI: task runs for chunks or items, a progress bar, a table of the results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.states import Completed, Failed

from ags_flows.batch.items import Item, Items
from ags_flows.batch.queue import Turn
from ags_flows.batch.reports import failure_of, may_fail
from ags_flows.batch.runner import Runner
from ags_flows.batch.shards import Progress, Shards
from ags_flows.batch.slices import PROGRESS as PROGRESS_FILE
from ags_flows.batch.storage import repeated, storage_at
from ags_flows.models import BatchOptions, BatchReport, ItemResult
from ags_flows.models.batch import TaskRuns
from ags_flows.run.artifacts import show
from ags_flows.run.holder import INTERNAL
from ags_flows.run.logs import run_logger

PROGRESS = "batch-progress"
RESULTS = "batch-results"
CHUNK = 100
MOST_CHUNKS = 100
MOST_ROWS = 200
MOST_LOGGED = 20
SHOWN_OUTPUT = 200
UPDATE_EVERY = 2.0
POLL = 0.5


class Observer:
    """Watches a batch, and shows it in the Prefect UI; outside of a flow run it only watches.

    Args:
        items: The items.
        task_runs: What gets a task run.
    """

    def __init__(self, items: Sequence[Item], task_runs: TaskRuns) -> None:
        self._items = items
        self._task_runs = task_runs
        self._in_flow = FlowRunContext.get() is not None
        self._artifact: UUID | None = None
        self._updated = 0.0
        self._shown = -1

    def announce(self, done: int) -> None:
        """Show the progress before there is any; what the server has to write later comes in bursts."""
        if self._in_flow:
            progress, text = _percent(done, len(self._items)), self._text(done, 0)
            created = show(lambda: create_progress_artifact(progress, key=PROGRESS, description=text))
            self._artifact = created if isinstance(created, UUID) else None

    def watch(self, runner: Runner | Shards) -> None:
        """Return when the batch is over.

        Raises:
            AGSFlowsError: The batch cannot go on.
        """
        if self._in_flow and self._task_runs == "chunks" and isinstance(runner, Runner):
            self._watch_chunks(runner)
        while not runner.wait(POLL):
            self._update(runner)
        self._update(runner, now=True)

    def report(self, report: BatchReport, results: Sequence[ItemResult], failed_as_a_whole: bool) -> None:
        """Write the table, and emit an event: `ags.batch.failed` where more failed than may, else `.finished`.

        Args:
            report: The outcome of the batch.
            results: The first of them, failed ones first.
            failed_as_a_whole: Whether more failed than may.
        """
        run_logger().info("%s", _line(report))
        for one in report.failures[:MOST_LOGGED]:
            run_logger().warning("Item %s failed: %s: %s", one.key, one.error_class, one.error.partition("\n")[0])
        if report.failed > MOST_LOGGED:
            run_logger().warning("%d more items failed; all are in %s", report.failed - MOST_LOGGED, report.results)
        if not self._in_flow:
            return
        rows = [_row(result) for result in results[:MOST_ROWS]]
        show(lambda: create_table_artifact(key=RESULTS, table=rows, description=_summary(report, len(rows))))
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            emit_event(
                event="ags.batch.failed" if failed_as_a_whole else "ags.batch.finished",
                resource={"prefect.resource.id": f"ags.batch.{context.flow_run.id}"},
                payload=report.model_dump(mode="json", exclude={"failures"}),
            )

    def _watch_chunks(self, runner: Runner) -> None:
        size = max(CHUNK, math.ceil(len(self._items) / MOST_CHUNKS))
        for start in range(0, len(self._items), size):
            chunk = self._items[start : start + size]
            keys = [item.key for item in chunk]
            if runner.over and not runner.wait_for(keys, 0)[0]:
                # The batch ended before it came to this chunk.
                return
            name = f"items {start + 1} to {start + len(chunk)}"
            wait = partial(self._wait_for, runner, keys)
            _chunk_task.with_options(task_run_name=name)(wait, return_state=True)

    def _wait_for(self, runner: Runner, keys: Sequence[str]) -> State[None]:
        """Return when the items of a chunk are done, or the batch is over."""
        over, done, failed = False, 0, 0
        while done < len(keys) and not over:
            # One more look after the end: the last items may have been done in between.
            over, (done, failed) = runner.over, runner.wait_for(keys, POLL)
            self._update(runner)
        message = f"{done - failed} of {len(keys)} items succeeded, {failed} failed"
        if done < len(keys):
            return Failed(message=f"{message}; the batch ended before the others.")
        return Failed(message=f"{message}.") if failed else Completed(message=f"{done} items succeeded.")

    def _update(self, runner: Runner | Shards, now: bool = False) -> None:
        if self._artifact is None or not (now or time.monotonic() - self._updated >= UPDATE_EVERY):
            return
        self._updated = time.monotonic()
        if runner.done != self._shown:
            self._shown = runner.done
            progress, text = _percent(self._shown, len(self._items)), self._text(self._shown, runner.failed)
            show(partial(update_progress_artifact, self._artifact, progress, description=text))

    def _text(self, done: int, failed: int) -> str:
        more = f", {failed:,} of them failed" if failed else ""
        return f"{done:,} of {len(self._items):,} items done{more}"


def concluded(
    report: BatchReport, results: Sequence[ItemResult], observer: Observer, read: Items, options: BatchOptions
) -> BatchReport:
    """Show a report and return it.

    Raises:
        BatchFailedError: More items failed than may, or the batch ended early.
    """
    most = may_fail(read, options)
    failed = report.failed > most or report.succeeded + report.failed < report.items
    observer.report(report, results, failed)
    if failed:
        raise failure_of(report, options.fail_above, most)
    return report


class ShardObserver(Observer):
    """Watches a shard of a batch, and writes its progress where the flow run that started it reads it.

    Args:
        location: The results location of the shard.
    """

    def __init__(self, location: str) -> None:
        super().__init__([], "none")
        self._storage = storage_at(location)
        # What the executions before it reported, if they were lost: its parent has removed all other reports.
        self._before = Progress.read(self._storage)
        self._progress = self._before

    def announce(self, done: int) -> None:
        """Write the progress before there is any."""
        self._write(done=done, failed=0)

    def watch(self, runner: Runner | Shards) -> None:
        """Return when the shard is over."""
        written, started = time.monotonic(), 0
        while not runner.wait(POLL):
            if time.monotonic() - written >= UPDATE_EVERY or runner.started != started:
                written, started = time.monotonic(), runner.started
                self._write_of(runner)
        self._write_of(runner)

    def report(self, report: BatchReport, results: Sequence[ItemResult], failed_as_a_whole: bool) -> None:
        """Write the last progress."""
        run_logger().info("%s", _line(report))
        self._write(sandboxes=max(self._before.sandboxes, report.sandboxes))

    def _write_of(self, runner: Runner | Shards) -> None:
        most = max(self._before.sandboxes, runner.most)
        started = self._before.started + runner.started
        self._write(done=runner.done, failed=runner.failed, started=started, sandboxes=most)

    def _write(self, **changes: int) -> None:
        self._progress = replace(self._progress, beat=time.time_ns(), **changes)
        content = json.dumps(asdict(self._progress)).encode()
        repeated(self._storage, lambda: self._storage.write(PROGRESS_FILE, content))


def completed(report: BatchReport) -> BatchReport:
    """Return a report as the result of the flow run that is executing, whose state message counts the failed items."""
    failed = f", {report.failed:,} failed" if report.failed else ""
    message = f"{report.succeeded:,} of {report.items:,} items succeeded{failed}."
    # Prefect returns the data of the state to the caller of the flow.
    return Completed(message=message, data=report)  # type: ignore[return-value]


def _percent(done: int, items: int) -> float:
    return math.floor(1000 * done / items) / 10


# These have no tag: Prefect takes a slot of the limit of each tag, whether there is one or not, and that is two more
# requests for each task run, which wait where the server is busy.
@task(name="chunk", cache_policy=NO_CACHE, persist_result=False)
def _chunk_task(wait: Callable[[], State[None]]) -> State[None]:
    # A function, since Prefect looks into all that a task run is given.
    return wait()


@task(name="item", cache_policy=NO_CACHE, persist_result=False)
def _one_item(key: str, do: Callable[[], None]) -> State[None]:
    return do()  # type: ignore[return-value,func-returns-value]


for _internal in (_chunk_task, _one_item):
    setattr(_internal.fn, INTERNAL, True)


def item_task(masked: Callable[[str], str], turn: Turn, do: Callable[[], ItemResult]) -> ItemResult:
    """Do one item as a task run, which fails when the item does.

    Args:
        masked: Masks what is secret in the key.
        turn: The item.
        do: Does it.
    """
    key = masked(turn.item.key)
    results: list[ItemResult] = []

    def noted() -> State[None]:
        results.append(do())
        result = results[0]
        return Completed(message="ok") if result.status == "ok" else Failed(message=result.error)

    state = _one_item.with_options(task_run_name=f"item: {key}"[:200])(key, noted, return_state=True)
    if not results:
        state.result()
    return results[0]


def _row(result: ItemResult) -> dict[str, str]:
    output = result.error or (str(result.value) if result.value is not None else result.stdout)
    return {
        "item": result.key,
        "outcome": result.status,
        "exit code": "" if result.exit_code is None else str(result.exit_code),
        "output": output.strip()[-SHOWN_OUTPUT:],
        "attempts": str(result.attempts),
        "seconds": f"{result.seconds:.2f}",
        "sandbox": result.instance_id,
    }


def _line(report: BatchReport) -> str:
    resumed = f" ({report.resumed:,} before)" if report.resumed else ""
    return (
        f"{report.succeeded:,} of {report.items:,} items succeeded{resumed}, {report.failed:,} failed, in "
        f"{report.seconds:.1f} s, in {report.started:,} sandboxes, at most {report.sandboxes:,} at the same time"
    )


def _summary(report: BatchReport, shown: int) -> str:
    lines = [f"**{_line(report)}** ({report.items_per_second:.1f} items a second)", ""]
    if report.duplicates:
        lines.append(f"- {report.duplicates:,} items were given more than once, and done once")
    if report.unlisted:
        lines.append(f"- {report.unlisted:,} recorded items are not among the items, and not in the results")
    classes: dict[str, int] = {}
    for one in report.failures:
        classes[one.error_class] = classes.get(one.error_class, 0) + 1
    lines += [f"- {count:,} × failed with `{name}`" for name, count in classes.items()]
    lines.append(f"- All results, in the order of the items: `{report.results}`")
    if shown < report.items:
        lines.append(f"- Shown here: {shown:,}, failed ones first")
    return "\n".join(lines)
