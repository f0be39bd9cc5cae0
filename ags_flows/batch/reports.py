"""What a batch reports: how many of its items may fail, and the error if more did."""

from __future__ import annotations

import math

from ags_flows.batch.items import Items
from ags_flows.batch.storage import Storage
from ags_flows.errors import BatchFailedError
from ags_flows.models import BatchOptions, BatchReport
from ags_flows.run.logs import run_logger

SHOWN_FAILURES = 100


def may_fail(read: Items, options: BatchOptions) -> int:
    """Return how many items may fail: 0.29 of 100 is 29, and not 28, the product of the floats."""
    return math.floor(round(options.fail_above * len(read.all), 6))


def failure_of(report: BatchReport, fail_above: float, may_fail: int) -> BatchFailedError:
    """Return the error of a batch of which more items failed than may, or which ended early."""
    undone = report.items - report.succeeded - report.failed
    first = "; ".join(f"{one.key}: {one.error.splitlines()[0]}" for one in report.failures[:3] if one.error)
    return BatchFailedError(
        f"{report.failed} of {report.items} items failed"
        + (f", more than the {fail_above:.0%} that may" if report.failed > may_fail else "")
        + (f"; {undone} were not begun any more" if undone else "")
        + (f". {first}." if first else "."),
        hint=f"All results are in {report.results}. A retry does what is not done.",
        report=report,
    )


def log_unlisted(count: int, storage: Storage) -> None:
    """Log how many recorded items are not among the items of the batch."""
    if count:
        run_logger().warning(
            "%d items that are recorded in %s are not among the items of this batch: they stay recorded there, and are "
            "not in its results.",
            count,
            storage.where(""),
        )
