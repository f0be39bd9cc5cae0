"""The shards of a batch, seen from the flow run that started them: started once, watched, and retried when lost.

A shard is a flow run of a deployment, which any worker of its work pool executes. Prefect's server, work pools and
workers move the work; nothing here does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from ags_flows.batch.slices import PROGRESS, Slice
from ags_flows.batch.storage import ResultsError, Storage, repeated
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import AGSFlowsError, BatchFailedError, ConfigurationError, UnreachableError
from ags_flows.run.logs import Logger

FLOW = "run-batch-shard"
"""The flow of a shard."""

LOOK_EVERY = 2.0

LOST_AFTER = 60.0
"""Seconds without a sign of life of a shard that is Running or Pending, after which it is executed again."""

SETTLED = 8.0
"""Seconds after which a crashed shard is executed again: a worker reports a crash a second time, and would overwrite an
earlier retry."""

MOST_LOSSES = 5
"""The number of losses without progress after which a shard is not executed again."""

LONGEST_CANCELLATION = 60.0

BACKOFF = Backoff(attempts=None, patience=600.0, first_pause=1.0, longest_pause=10.0)
"""How long a Prefect server that does not respond is waited for."""

OVER = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}


@dataclass
class Progress:
    """The progress that a shard writes.

    Attributes:
        beat: Grows as long as it is at work.
        done: How many of its items have ended.
        failed: How many of these failed.
        started: How many sandboxes it has started, in all its executions by the flow run that started it.
        sandboxes: How many it used concurrently, at most.
    """

    beat: int = 0
    done: int = 0
    failed: int = 0
    started: int = 0
    sandboxes: int = 0

    @classmethod
    def read(cls, storage: Storage) -> Progress:
        """Return the latest progress of the shard with a results location."""
        content = repeated(storage, lambda: storage.read(PROGRESS))
        try:
            return cls(**json.loads(content or b"{}"))
        except (TypeError, ValueError):
            # It is being written.
            return cls()


@dataclass
class Shard:
    """One shard.

    Attributes:
        part: Its items.
        run: Its flow run.
        progress: What it reported last.
        heard: When the progress or the state changed last, in seconds that only grow.
        losses: How often it was lost since its last progress.
    """

    part: Slice
    run: FlowRun
    progress: Progress = field(default_factory=Progress)
    heard: float = field(default_factory=time.monotonic)
    losses: int = 0
    over: bool = False

    @property
    def state(self) -> StateType | None:
        """The type of its state."""
        return self.run.state.type if self.run.state is not None else None

    def prepare(self) -> None:
        """Have it executed again if it has ended badly, and forget what an earlier attempt reported."""
        has_failures = self.state is StateType.COMPLETED and Progress.read(self.part.storage).failed > 0
        if has_failures or self.state in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED):

            def again() -> None:
                with get_client(sync_client=True) as client:
                    client.set_flow_run_state(self.run.id, awaiting_retry(), force=True)
                    self.run = client.read_flow_run(self.run.id)

            on_server(again)
        if self.state is StateType.SCHEDULED:
            # What an earlier attempt wrote does not count.
            repeated(self.part.storage, lambda: self.part.storage.write(PROGRESS, b"{}"))


class Shards:
    """The shards of one batch. For an observer it is what a `Runner` is.

    Args:
        shards: The shards that were started.
        failures: More failed items than that end the batch early.
        logger: Gets what happens to shards.
        check: Called with each look: raises an error if another run has taken the batch over.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        failures: int,
        logger: Logger,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._shards = list(shards)
        self._failures = failures
        self._logger = logger
        self._check = check
        self._looked = 0.0
        self._most = 0

    def add(self, shard: Shard) -> None:
        """Add a shard that was started."""
        self._shards.append(shard)

    @property
    def over(self) -> bool:
        """Whether no shard is at work any more."""
        return all(shard.over for shard in self._shards)

    @property
    def done(self) -> int:
        """How many items have ended."""
        return sum(shard.progress.done for shard in self._shards)

    @property
    def failed(self) -> int:
        """How many items have failed."""
        return sum(shard.progress.failed for shard in self._shards)

    @property
    def started(self) -> int:
        """How many sandboxes were started."""
        return sum(shard.progress.started for shard in self._shards)

    @property
    def most(self) -> int:
        """How many sandboxes were used concurrently, at most: those of shards that were at work at the same time."""
        return self._most

    def wait(self, seconds: float) -> bool:
        """Look at all shards from time to time; return whether all are over, after at most some seconds.

        Raises:
            BatchFailedError: A shard failed or was cancelled, or was lost too many times.
            UnreachableError: The Prefect server did not respond for ten minutes.
        """
        pause = self._looked + LOOK_EVERY - time.monotonic()
        if pause > 0:
            time.sleep(min(seconds, pause))
            if pause > seconds:
                return self.over
        self._looked = time.monotonic()
        self._check()
        at_work = [shard for shard in self._shards if not shard.over]
        for shard, run in zip(self._shards, self._runs(), strict=True):
            self._look(shard, run)
        if self.failed > self._failures and not self.over:
            self.cancel()
        self._most = max(self._most, sum(shard.progress.sandboxes for shard in at_work))
        return self.over

    def cancel(self) -> None:
        """Cancel the shards that are not over, and wait until they are, for a minute at most."""
        for shard in self._shards:
            if not shard.over:
                self._set(shard, Cancelling(message="The batch has ended."))
        ends = time.monotonic() + LONGEST_CANCELLATION
        while time.monotonic() < ends and not self.over:
            for shard, run in zip(self._shards, self._runs(), strict=True):
                shard.run = run
                shard.over = shard.state in OVER
            time.sleep(0.5)
        for shard in self._shards:
            shard.over = True
            # The results may be why the batch ends.
            with suppress(ResultsError):
                shard.progress = Progress.read(shard.part.storage)

    def _look(self, shard: Shard, run: FlowRun) -> None:
        progress, before = Progress.read(shard.part.storage), shard.state
        if progress != shard.progress or (run.state and shard.run.state and run.state.id != shard.run.state.id):
            shard.heard = time.monotonic()
            if progress.done > shard.progress.done:
                shard.losses = 0
        shard.run, shard.progress = run, progress
        silent = time.monotonic() - shard.heard
        if shard.over or shard.state is StateType.COMPLETED:
            shard.over = True
        elif shard.state is StateType.CRASHED:
            if silent > SETTLED:
                self._again(shard, "crashed")
        elif shard.state in (StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING):
            message = run.state.message if run.state else ""
            raise BatchFailedError(
                f"Shard {shard.part.number} ({run.name}) is {before and str(shard.state.value).lower()}: {message}",
                hint="What it did is recorded. A retry of this flow run executes the shard again.",
            )
        elif shard.state in (StateType.RUNNING, StateType.PENDING) and silent > LOST_AFTER:
            self._again(shard, f"gave no sign of life for {silent:.0f} s")
        elif shard.state is StateType.SCHEDULED and silent > LOST_AFTER:
            shard.heard = time.monotonic()
            self._logger.warning("No worker has picked up shard %s (%s) yet.", shard.part.number, run.name)

    def _again(self, shard: Shard, why: str) -> None:
        shard.losses += 1
        if shard.losses > MOST_LOSSES:
            raise BatchFailedError(
                f"Shard {shard.part.number} ({shard.run.name}) {why}, {shard.losses} times in a row."
            )
        self._logger.warning("Shard %s (%s) %s: it is executed again.", shard.part.number, shard.run.name, why)
        self._set(shard, awaiting_retry())
        shard.heard = time.monotonic()

    def _runs(self) -> list[FlowRun]:
        ids = [shard.run.id for shard in self._shards]

        def read() -> dict[UUID, FlowRun]:
            with get_client(sync_client=True) as client:
                found: dict[UUID, FlowRun] = {}
                for start in range(0, len(ids), 200):
                    chunk = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + 200]))
                    found |= {run.id: run for run in client.read_flow_runs(flow_run_filter=chunk)}
                return found

        known = on_server(read)
        missing = [str(one) for one in ids if one not in known]
        if missing:
            raise BatchFailedError(f"The Prefect server does not know the shards {', '.join(missing)} any more.")
        return [known[one] for one in ids]

    def _set(self, shard: Shard, state: State[Any]) -> None:
        # Prefect's rules have no way from Pending back to Scheduled.
        force = shard.state is StateType.PENDING

        def change() -> None:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(shard.run.id, state, force=force)

        on_server(change)


def started(part: Slice, deployment: str, parameters: dict[str, Any], key: str, name: str) -> Shard:
    """Start a shard, or find the one that an earlier attempt has started.

    Args:
        part: Its items.
        deployment: `flow/deployment`.
        parameters: Of its flow run.
        key: The same in every attempt.
        name: Of its flow run.
    """
    run = on_server(
        lambda: run_deployment(deployment, parameters=parameters, idempotency_key=key, flow_run_name=name, timeout=0)
    )
    return Shard(part, run)


def check_deployment(deployment: str) -> None:
    """Refuse a deployment that cannot execute shards.

    Args:
        deployment: `flow/deployment`.

    Raises:
        ConfigurationError: There is no such deployment, or it is one of another flow.
    """

    def read() -> None:
        with get_client(sync_client=True) as client:
            client.read_deployment_by_name(deployment)

    flow, _, name = deployment.partition("/")
    problem = f"it is not a deployment of the flow {FLOW}" if flow != FLOW or not name or "/" in name else ""
    if not problem:
        try:
            on_server(read)
        except ObjectNotFound:
            problem = "the Prefect server has no such deployment"
    if problem:
        raise ConfigurationError(
            f"shard_deployment={deployment!r}: {problem}.",
            hint=f"Write {FLOW}/NAME; deployments/README.md shows how to deploy it. Nothing was started.",
        )


def awaiting_retry() -> State[Any]:
    """Return the state from which a worker executes a flow run again."""
    return State(type=StateType.SCHEDULED, name="AwaitingRetry")


def on_server(action: Callable[[], Any]) -> Any:
    """Call the Prefect server, again and again while it does not respond.

    Raises:
        UnreachableError: It did not respond for ten minutes.
    """

    def act() -> Any:
        try:
            return action()
        except AGSFlowsError:
            raise
        except (httpx.HTTPError, RuntimeError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            raise UnreachableError(f"The Prefect server did not respond: {type(error).__name__}: {error}") from error

    return persistently(act, BACKOFF)
