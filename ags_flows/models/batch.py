"""The results of a batch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ags_flows.models.value import Value


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
        resumed: Number of items whose results are from an earlier, interrupted attempt.
        failures: The first failed items. `results` has all of them.
        results: Path or URL of the results: JSON Lines in the order of the items.
        sandboxes: Maximum number of sandboxes that ran concurrently.
        started: Total number of sandboxes that were started.
        seconds: Duration of the batch.
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
        """Throughput of this run, without the resumed items."""
        return (self.items - self.resumed) / self.seconds if self.seconds else 0.0
