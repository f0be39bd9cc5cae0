"""What became of the items of a batch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ags_flows.models.value import Value


class ItemResult(Value):
    """What became of one item: one line of the results.

    Attributes:
        key: What the item is known by in this batch.
        index: Which item it is, from 0.
        status: Whether its command ended with 0, or its function returned.
        value: What its function returned (JSON); None for a command.
        exit_code: The command's, None where no command ended.
        stdout, stderr: The command's, at most a few kilobytes of each: head and tail.
        error: What went wrong, in words.
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
        sandboxes: How many sandboxes were used at most at once.
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
