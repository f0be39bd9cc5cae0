"""Where a batch keeps what it knows, and the place of its execution in the run."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from prefect.context import FlowRunContext

from ags_flows.batch.claim import location_of
from ags_flows.batch.identity import identity_of
from ags_flows.batch.items import Items
from ags_flows.batch.storage import Storage, result_storage, storage_at
from ags_flows.batch.work import Work
from ags_flows.models import BatchOptions
from ags_flows.ownership import Holder, fingerprint
from ags_flows.run.holder import Execution, current_execution, owner


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch is kept, and its holder."""

    storage: Storage
    execution: Execution
    holder: Holder


def place_of(read: Items, work: Work, options: BatchOptions) -> BatchPlace:
    """Return where a batch is kept, and its execution. Its place is what it does: another batch has another one."""
    base = current_execution().rooted()
    does = fingerprint([work.does, read.source, options.step])
    execution = replace(base, place=base.place.within("run_items", does))
    step, results = execution.step("run_items", {}), options.results
    storage = storage_for(results)
    if results is None:
        identity = identity_of(read, work, options)
        storage, number = location_of(storage, step, lambda found: identity.fit(found, read.all))
        location = str(number)
    else:
        location = str(results) if isinstance(results, (str, Path)) else storage.where("")
    # Equal batches of one run do not share their sandboxes.
    execution = replace(execution, place=execution.place.within("results", location))
    return BatchPlace(storage, execution, step.holder)


def storage_for(results: str | Path | Storage | None) -> Storage:
    """Return where a batch keeps what it knows: by default in the result storage of the flow run that is executing."""
    if isinstance(results, (str, Path)):
        return storage_at(str(results))
    if results is not None:
        return results
    context = FlowRunContext.get()
    filesystem = context.result_store.result_storage if context is not None else None
    return result_storage(filesystem, f"ags-flows/batches/{owner().flow_run_id or f'local-{uuid.uuid4()}'}/")
