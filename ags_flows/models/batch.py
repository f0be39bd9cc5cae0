"""The results of a batch."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import check_local, shown_value
from ags_flows.models.fields import Name, Timeout, by
from ags_flows.models.value import Given, Value

TaskRuns = Literal["chunks", "items", "none"]
OnCrash = Literal["lease", "stop"]


def _check_results(value: Any, field: str) -> Any:
    if value is None or callable(getattr(value, "write", None)):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(f"{field} must be a path or a URL, got {shown_value(value)}.")
    return check_local(value, field)


class BatchOptions(Given):
    """How the items of a batch are done.

    Attributes:
        sandboxes: How many sandboxes at the same time; by default what the account's quota leaves free, at most 100.
        items_per_sandbox: After how many items a sandbox is replaced; None for never, 1 for a fresh one each.
        concurrency_limit: A global concurrency limit of the Prefect server: each sandbox takes one slot of it, in all
            flow runs together.
        rate_limit: A global concurrency limit with a slot decay: each start of a sandbox takes one slot of it.
        results: Where results and progress are kept: a local path, or a URL that fsspec knows (`s3://...`); by
            default the result storage of the flow run.
        retries: How often an item is tried again after a failure of the sandbox or the cloud.
        retries_of_failed: How often an item is tried again that itself failed.
        fail_above: The part of the items that may fail, 0 to 1. As soon as more have failed, the batch ends.
        task_runs: `chunks`: a task run for every hundred items or so; `items`: one for each item, and for each step
            of it; `none`.
        lease: How long sandboxes outlive this process, `30s` to `24h`; by default the configuration's.
        on_crash: What happens to the sandboxes when this process is killed: `lease` leaves them to a retry and to
            their lease, `stop` stops them.
        delete_tool: Delete the tool afterwards; by default only one that was created here.
        step: Distinguishes batches of one flow run that do the same with items of the same source.
    """

    sandboxes: int | None = Field(default=None, ge=1)
    items_per_sandbox: int | None = Field(default=None, ge=1)
    concurrency_limit: Name | None = None
    rate_limit: Name | None = None
    results: Annotated[Any, by(_check_results)] = None
    retries: int = Field(default=2, ge=0)
    retries_of_failed: int = Field(default=0, ge=0)
    fail_above: float = Field(default=0.1, ge=0, le=1)
    task_runs: TaskRuns = "chunks"
    lease: Timeout | None = None
    on_crash: OnCrash = "lease"
    delete_tool: bool | None = None
    step: str = ""


class ItemResult(Value):
    """The result of one item: one line of the results file.

    Attributes:
        key: Key of the item in this batch.
        index: 0-based index of the item.
        status: `ok` if the item's command exited with 0, or its function returned.
        value: Return value of the function (JSON); None for a command.
        exit_code: Exit code of the command; None if no command ended.
        stdout, stderr: Output of the command, at most a few kilobytes of each: head and tail.
        error: Error message, empty if the item succeeded.
        error_class: Name of the error's class; `ExitCode` for a command with an exit code other than 0.
        attempts: Number of attempts, in all runs of the batch.
        seconds: Duration of the last attempt.
        instance_id: The instance of the last attempt.
    """

    MEASURED = frozenset({"seconds", "instance_id", "attempts"})

    key: str
    index: int
    status: Literal["ok", "failed"]
    value: Any = None
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    error_class: str = ""
    attempts: int = 1
    seconds: float = 0.0
    instance_id: str = ""


class BatchReport(Value):
    """The report of a batch.

    Attributes:
        items: Number of different items.
        succeeded: Number of items that succeeded.
        failed: Number of items that failed.
        duplicates: Number of items that were equal to an earlier one. Each different item is executed once.
        resumed: Number of items that succeeded in an earlier attempt, or in an earlier run with the same `results`.
        unlisted: Number of items that are recorded at `results` and are not among the items.
        failures: The first failed items. `results` has all of them.
        results: Path or URL of the results: JSON Lines in the order of the items.
        sandboxes: Maximum number of sandboxes that ran concurrently.
        started: Total number of sandboxes that were started.
        seconds: Duration of the batch.
    """

    MEASURED = frozenset({"seconds", "resumed", "unlisted", "sandboxes", "started"})

    items: int
    succeeded: int
    failed: int
    duplicates: int = 0
    resumed: int = 0
    unlisted: int = 0
    failures: tuple[ItemResult, ...] = Field(default=())
    results: str = ""
    sandboxes: int = 0
    started: int = 0
    seconds: float = 0.0

    @property
    def items_per_second(self) -> float:
        """Throughput of this run, without the resumed items."""
        return (self.items - self.resumed) / self.seconds if self.seconds else 0.0
