"""Where a batch without `results=` keeps its results: a location for each batch of a run, which a retry finds again."""

from __future__ import annotations

import itertools
import threading

from ags_flows.batch.storage import Storage
from ags_flows.errors import SupersededError
from ags_flows.ownership import Holder, Step, relation

HOLDER = "holder.txt"

_lock = threading.Lock()


def location_of(storage: Storage, step: Step) -> tuple[Storage, int]:
    """Return the location of a batch: the first number of its family that is free, or that an earlier attempt left.

    The number tells batches of one run apart that do the same.

    A storage has nothing that decides between two processes. Batches of one run that do the same, and that several
    processes begin at the same moment, need names of their own (`step=`).

    Args:
        storage: Where batches of the run are kept.
        step: The batch.

    Raises:
        SupersededError: A later attempt of the run works on the batch.
    """
    with _lock:
        for number in itertools.count():
            location = storage.under(f"{step.family}/{number}/")
            theirs = Holder.parse(location.read(HOLDER).decode(errors="replace"))
            found = relation(step.holder, theirs) if theirs is not None else "superseded"
            if found == "same":
                return location, number
            if found == "stale":
                raise SupersededError(
                    f"A later attempt of this run ({theirs}) works on the batch at {location.where('')}."
                )
            if found == "superseded":
                location.write(HOLDER, str(step.holder).encode())
                return location, number
    raise AssertionError("unreachable")
