"""A batch on several machines: the flow run starts one run of a deployment for each shard, and merges the results."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from ags_flows.batch.claim import claimed
from ags_flows.batch.identity import identity_of
from ags_flows.batch.items import Items
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.limits import limited_by
from ags_flows.batch.place import place_of
from ags_flows.batch.pool import MOST_SANDBOXES, free_quota
from ags_flows.batch.reports import SHOWN_FAILURES, log_unlisted, may_fail
from ags_flows.batch.shards import Shards, check_deployment, started
from ags_flows.batch.slices import Slice, sliced
from ags_flows.batch.storage import RESULTS, ResultsError, Storage, repeated
from ags_flows.batch.tool import BatchTool
from ags_flows.batch.work import Work
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import ConfigurationError
from ags_flows.flows.batch_progress import MOST_ROWS, Observer, concluded
from ags_flows.models import BatchOptions, BatchReport, ItemResult, Tool, ToolSpec
from ags_flows.ownership import digest
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, ending_of

PASSED_ON = {"items_per_sandbox", "concurrency_limit", "rate_limit", "retries", "retries_of_failed", "lease", "step"}
"""Options of a batch that its shards have too."""


class Sharding:
    """How a batch is divided among flow runs.

    Args:
        shards: How many.
        deployment: The deployment of `run_batch_shard`, as `flow/deployment`.
        settings: What is done, JSON-like: see `Work.of`.

    Raises:
        ConfigurationError: It is not possible here.
    """

    def __init__(self, shards: int, deployment: str, settings: Mapping[str, Any]) -> None:
        if shards < 1:
            raise ConfigurationError(f"shards must be >= 1, got {shards}.")
        if FlowRunContext.get() is None:
            raise ConfigurationError("shards: a batch with shards needs a flow run. Use run_batch.")
        self.shards = shards
        self.deployment = deployment
        self.settings = dict(settings)


def do_shards(
    read: Items,
    work: Work,
    tool: ToolSpec | Tool | str | None,
    options: BatchOptions,
    config: AGSConfig | None,
    sharding: Sharding,
) -> BatchReport:
    """Do a batch in shards. See `run_batch`."""
    if not options.results:
        raise ConfigurationError(
            "results: a batch with shards needs a location that all workers can read and write.",
            hint="Give a directory that they share, or a URL such as s3://bucket/path.",
        )
    location = _location(options.results)
    if location.startswith("memory://"):
        raise ConfigurationError(
            f"results: {location} is in the memory of this process: the shards are other processes.",
            hint="Give a directory that all workers share, or a URL such as s3://bucket/path. Nothing was started.",
        )
    limit = limited_by(options.concurrency_limit)[1] if options.concurrency_limit else math.inf
    here, passed_config = config or AGSConfig(), _reference(config)
    reference = tool if tool is not None else here.tool_id
    if not reference:
        raise ConfigurationError("No tool is given.", hint="Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...).")
    if options.sandboxes is not None and options.sandboxes < sharding.shards:
        raise ConfigurationError(
            f"sandboxes={options.sandboxes} are too few for {sharding.shards} shards: each has one at least.",
            hint="Nothing was started. Use fewer shards, or more sandboxes.",
        )
    begun, place, count = time.monotonic(), place_of(read, work, options), sharding.shards
    identity = identity_of(read, work, options, count)
    with claimed(place.storage, place.holder, run_logger(), lambda: None) as claim:
        identity.check(place.storage)
        slices = sliced(read.all, count, location)
        before = _checked(slices, work, options)
        unlisted = sum(len(ledger.unlisted) for ledger in before)
        log_unlisted(unlisted, place.storage)
        resumed = sum(len(ledger.resumed) for ledger in before)
        check_deployment(sharding.deployment)
        observer = Observer(read.all, "none")
        made = BatchTool(here, reference, options.delete_tool)
        shards, watching = Shards([], 0, run_logger()), False
        try:
            parameters = {
                "work": sharding.settings,
                "tool": made.make(),
                "config": passed_config,
                "on_crash": options.on_crash,
            }
            identity.record(place.storage)
            observer.announce(resumed)
            # Of this flow run: a retry finds the runs that it started, another run starts its own.
            key = digest(place.execution.frames[0].id, *place.execution.place.path)
            # What was started is cancelled, also if the start of a later shard fails.
            shards = Shards([], may_fail(read, options), run_logger(), lambda: repeated(place.storage, claim.check))
            common = options.model_dump(include=PASSED_ON)
            for part, share in zip(slices, _shares(options.sandboxes, here, len(slices)), strict=True):
                part.write()
                shard = started(
                    part,
                    sharding.deployment,
                    {**parameters, "location": part.location, "options": {**common, "sandboxes": share}},
                    # A list or a value that has changed since is other work, also for a retry of this run.
                    key=f"{key}-{part.number}-{digest(*(item.key + item.version for item in part.items))[:12]}",
                    name=f"shard-{part.number}-of-{key[:8]}",
                )
                shards.add(shard)
                shard.prepare()
            watching = True
            observer.watch(shards)
        except BaseException as error:
            ending = ending_of(claim.lost or error)
            if watching and isinstance(claim.lost or error, ResultsError):
                # The shards go on: a retry may find the results again.
                ending = "crashed"
            _end(shards, made, "cancelled" if ending == "crashed" and options.on_crash == "stop" else ending)
            raise
        _end(shards, made, "completed")
        report, shown = _merge(read, slices, work, options, place.storage)
    seconds = round(time.monotonic() - begun, 3)
    report = report.model_copy(
        update={
            "resumed": resumed,
            "unlisted": unlisted,
            "sandboxes": min(shards.most, limit),
            "started": shards.started,
            "seconds": seconds,
        }
    )
    return concluded(report, shown, observer, read, options)


def _end(shards: Shards, made: BatchTool, ending: Ending) -> None:
    if ending in ("crashed", "suspended", "superseded"):
        # The shards go on, and a retry of this run finds them.
        return
    if ending != "completed":
        shards.cancel()
    made.delete(quietly=ending == "cancelled")


def _merge(
    read: Items, slices: list[Slice], work: Work, options: BatchOptions, storage: Storage
) -> tuple[BatchReport, list[ItemResult]]:
    """Write the results of all shards in the order of the items; return the report, and the results to show."""
    merged = [result for part in slices for result in _ledger(part, work, options).results()]
    ordered = sorted(merged, key=lambda result: result.index)
    lines = b"".join(result.model_dump_json().encode() + b"\n" for result in ordered)
    repeated(storage, lambda: storage.write(RESULTS, lines))
    failures = [result for result in ordered if result.status == "failed"]
    report = BatchReport(
        items=len(read.all),
        succeeded=len(ordered) - len(failures),
        failed=len(failures),
        duplicates=read.duplicates,
        failures=tuple(failures[:SHOWN_FAILURES]),
        results=storage.where(RESULTS),
    )
    shown = [*failures, *(result for result in ordered if result.status == "ok")][:MOST_ROWS]
    return work.masked((report, shown))


def _ledger(part: Slice, work: Work, options: BatchOptions) -> Ledger:
    """Return the record of a shard."""
    identity = identity_of(Items(part.items, source=part.location), work, options)
    return Ledger(part.storage, part.items, identity)


def _checked(slices: list[Slice], work: Work, options: BatchOptions) -> list[Ledger]:
    """Return the records of all shards before they begin.

    Raises:
        ConfigurationError: They are of other items alone.
    """
    ledgers = [_ledger(part, work, options) for part in slices]
    if not any(ledger.knows_items for ledger in ledgers):
        for ledger in ledgers:
            ledger.refuse_other_items()
    return ledgers


def _shares(total: int | None, config: AGSConfig, shards: int) -> list[int]:
    """Return how many sandboxes each shard has: together as many as there are, if each can have one."""
    if total is None:
        with closing(PacedControlPlane(config.connection())) as control:
            free = free_quota(control, config.region, run_logger())
        total = MOST_SANDBOXES * shards if free is None else max(free, shards)
    return [min(MOST_SANDBOXES, total // shards + (number < total % shards)) for number in range(shards)]


def _location(results: Any) -> str:
    """Return the results location as all workers understand it: not relative to a directory of this process."""
    text = str(results)
    return text if "://" in text or text.startswith("file:") else str(Path(text).expanduser().absolute())


def _reference(config: AGSConfig | None) -> Any:
    """Return the configuration as a parameter of another flow run, without its secrets."""
    if config is None:
        return ""
    document = config._block_document_id
    if document is None and config.model_dump() == AGSConfig().model_dump():
        # The environment of this process: the shards take that of their workers.
        return ""
    if document is None:
        raise ConfigurationError(
            "config: the shards of a batch run on other machines, which cannot be given a configuration that is not "
            "saved.",
            hint="Save it by config.save(name) and pass AGSConfig.load(name), or set the workers' environment.",
        )
    return {"$ref": {"block_document_id": str(document)}}
