"""How the items of a batch are done, and what became of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ags_flows.models.value import Value

TaskRuns = Literal["chunks", "items", "none"]
OnCrash = Literal["lease", "stop"]


class BatchOptions(Value):
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
        on_crash: What becomes of the sandboxes when this process is killed: `lease` leaves them to a retry and to
            their lease, `stop` stops them.
        delete_tool: Delete the tool afterwards; by default only one that was created here.
        step: Tells batches of one flow run apart that do the same with items of the same source.
    """

    sandboxes: int | None = Field(default=None, ge=1)
    items_per_sandbox: int | None = Field(default=None, ge=1)
    concurrency_limit: str | None = None
    rate_limit: str | None = None
    results: Any = None
    retries: int = Field(default=2, ge=0)
    retries_of_failed: int = Field(default=0, ge=0)
    fail_above: float = Field(default=0.1, ge=0, le=1)
    task_runs: TaskRuns = "chunks"
    lease: str | None = None
    on_crash: OnCrash = "lease"
    delete_tool: bool | None = None
    step: str = ""


class ItemResult(Value):
    """What became of one item: one line of the results.

    Attributes:
        key: What the item is known by in this batch.
        index: Which item it is, from 0.
        status: Whether its command ended with 0, or its function returned.
        value: What its function returned (JSON); None for a command.
        exit_code: The command's, None where no command ended.
        stdout, stderr: The command's, at most a few kilobytes of each: head and tail.
        error: What went wrong, as text.
        error_class: The name of the error's class; `ExitCode` for a command that ended with another code than 0.
        attempts: How often it was tried, in all runs of the batch.
        seconds: How long the last attempt took.
        instance_id: Where the last attempt ran.
    """

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
    """What became of a batch.

    Attributes:
        items: How many different items there are.
        duplicates: How many items were the same as one before: each is done once.
        resumed: How many had been done before, by an attempt that was interrupted.
        failures: The first of the failed; all are in `results`.
        results: Where the results are, JSON Lines in the order of the items.
        sandboxes: How many sandboxes were used at the same time, at most.
        started: How many sandboxes were started in all.
    """

    items: int
    succeeded: int
    failed: int
    duplicates: int = 0
    resumed: int = 0
    failures: tuple[ItemResult, ...] = Field(default=())
    results: str = ""
    sandboxes: int = 0
    started: int = 0
    seconds: float = 0.0

    @property
    def items_per_second(self) -> float:
        """How fast it was, not counting what had been done before."""
        return (self.items - self.resumed) / self.seconds if self.seconds else 0.0
