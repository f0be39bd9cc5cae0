"""What a batch does, for the threads that do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ags_flows.batch.items import Item
from ags_flows.batch.limits import Gate, open_gate
from ags_flows.batch.pool import Order
from ags_flows.batch.queue import Turn
from ags_flows.batch.work import Work
from ags_flows.models import BatchOptions, ItemResult
from ags_flows.run.holder import Execution

Attempt = Callable[[Turn, Callable[[], ItemResult]], ItemResult]
"""Does one item: gets the turn and what does it. For a task run around each item."""


def plainly(turn: Turn, do: Callable[[], ItemResult]) -> ItemResult:
    """Do one item without a task run around it."""
    return do()


@dataclass(frozen=True)
class Plan:
    """What a batch does.

    Attributes:
        items: All items.
        work: What is done with each.
        order: What sandbox an item needs.
        options: How it is done.
        sandboxes: How many sandboxes at the same time.
        failures: More failed items than that end the batch early.
        execution: The execution of the batch.
        gate: Lets sandboxes in.
        attempt: Does one item.
    """

    items: tuple[Item, ...]
    work: Work
    order: Callable[[Item], Order]
    options: BatchOptions
    sandboxes: int
    failures: int
    execution: Execution
    gate: Gate = open_gate
    attempt: Attempt = plainly
