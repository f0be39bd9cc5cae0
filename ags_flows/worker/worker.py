"""The worker of work pools of type `ags`: each flow run is executed in a separate sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Optional, TypeVar, cast
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound
from prefect.workers.base import BaseWorker, BaseWorkerResult

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, CommandTimeoutError, NotFoundError
from ags_flows.models import Instance
from ags_flows.ownership import ENDED, KEPT, LIVE, MANAGED_BY, MANAGED_BY_KEY, STEP_NAME, flow_runs_of
from ags_flows.worker.configuration import AGSWorkerJobConfiguration, AGSWorkerVariables
from ags_flows.worker.configurations import config_of_pool, configuration_of, configuration_that_was
from ags_flows.worker.job import STEP, WORK_POOL, FlowRunSandbox, Job, OvertakenError, attempt_in, shown_end
from ags_flows.worker.patience import PatientClient, is_transient
from ags_flows.worker.reports import LEFT, report_cancelled, report_crashed, state_of
from ags_flows.worker.runs import (
    attempt_of,
    has_ended,
    is_followed,
    owner_of,
    runs_of_pool,
    runs_with_ids,
    show_waiting,
)

T = TypeVar("T")

CANCELLATIONS = (StateType.CANCELLING, StateType.CANCELLED)

LOOK_EVERY = 2.0
"""Seconds between two looks for flow runs that are being cancelled."""

GRACE = 6.0
"""Seconds that a flow has to end when it is cancelled, its hooks included: Prefect executes them in a new process."""

PENDING_FOR = timedelta(seconds=60)
"""A flow run that is PENDING for so long, and has no sandbox, lost its worker before the submission."""

LOOK_LIMIT = 60.0
"""Seconds for one part of a look for what was left: a request that is repeated must not prevent the others."""


class AGSWorkerResult(BaseWorkerResult):
    """The id of the sandbox of a flow run that is over.

    The code is 0, whatever the end: the flow or this worker has reported it. After any other code Prefect reports
    another crash, and would overwrite a retry that has begun since.
    """


class AGSWorker(BaseWorker[AGSWorkerJobConfiguration, AGSWorkerVariables, AGSWorkerResult]):
    """Executes flow runs in sandboxes of Tencent Cloud Agent Sandbox.

    `prefect work-pool create NAME --type ags` makes a work pool, and `prefect worker start --pool NAME` runs a worker.
    """

    type = "ags"
    job_configuration = AGSWorkerJobConfiguration
    job_configuration_variables = AGSWorkerVariables
    _description = "Execute flow runs in sandboxes of Tencent Cloud Agent Sandbox (AGS)."
    _display_name = "AGS sandbox"
    _documentation_url = "https://cloud.tencent.com/document/product/1814"
    _logo_url = "https://cloudcache.tencent-cloud.com/qcloud/favicon.ico"

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take the arguments of Prefect's workers."""
        super().__init__(*args, **options)
        self._active: dict[UUID, FlowRunSandbox] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        # Most of a thread is waiting: the usual limit would make flow runs wait for one another.
        self._threads = anyio.CapacityLimiter(10_000)

    @property
    def client(self) -> PrefectClient:
        """The client of the Prefect server: what a worker asks for, it asks for until the server responds."""
        return cast("PrefectClient", PatientClient(super().client))

    async def run(
        self,
        flow_run: FlowRun,
        configuration: AGSWorkerJobConfiguration,
        task_status: Optional[anyio.abc.TaskStatus[Any]] = None,  # noqa: UP045
    ) -> AGSWorkerResult:
        """Execute a flow run in a sandbox, and end the sandbox."""
        sandbox = self._sandbox(flow_run, configuration, attempt_of(flow_run))

        def started(instance_id: str) -> None:
            if task_status is not None:
                # Prefect records no identifier for an error.
                task_status.started(instance_id or RuntimeError("The flow run has no sandbox of this worker."))

        return await self._carry_out(sandbox, sandbox.open, started)

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: AGSWorkerJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """Stop the sandbox of a flow run.

        Raises:
            InfrastructureNotFound: It has ended.
        """
        control = (configuration.config or AGSConfig()).control_plane()

        def stop() -> None:
            try:
                if control.get_instance(infrastructure_pid).status in ENDED:
                    raise NotFoundError(f"Sandbox {infrastructure_pid} has ended.")
                persistently(lambda: control.stop_instance(infrastructure_pid))
            except NotFoundError as error:
                raise InfrastructureNotFound(str(error)) from error

        await self._in_thread(stop)

    async def sync_with_backend(self) -> None:
        """Synchronize with the Prefect server, and look for sandboxes and flow runs that lost their worker."""
        try:
            await super().sync_with_backend()
        except Exception as error:
            # Prefect ends a worker after some errors of this kind, and the leases of its sandboxes with it.
            if not self.is_setup or not is_transient(error):
                raise
            self._logger.warning("The Prefect server does not respond to the heartbeat: %s", error)
            return
        if self._recovering is None or self._recovering.done():
            self._recovering = asyncio.create_task(self._recover())

    async def teardown(self, *exc_info: Any) -> None:
        """Wait for the flow runs; or let go of them where the worker is being stopped: a later worker finds them."""
        try:
            # Before Prefect closes the client by which they are reported.
            while self._work and not any(exc_info):
                await asyncio.gather(*self._work, return_exceptions=True)
        finally:
            try:
                await super().teardown(*exc_info)
            finally:
                for task in (self._looking, self._recovering, *self._work):
                    if task is not None:
                        task.cancel()

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Label a flow run with its worker. Labels are for readers: no flow run waits for them, or fails without."""
        self._beside(self._tried(super()._give_worker_labels_to_flow_run(flow_run_id), f"labels of {flow_run_id}"))

    async def _propose_crashed_state(
        self, flow_run: FlowRun, message: str, client: PrefectClient | None = None
    ) -> None:
        """Report a submission that failed. An error of the report must not end the worker."""
        try:
            await report_crashed(client or self.client, flow_run.id, message)
        except Exception:
            self._logger.exception("Flow run %s cannot be reported as crashed", flow_run.id)

    def _sandbox(self, flow_run: FlowRun, configuration: AGSWorkerJobConfiguration, attempt: int) -> FlowRunSandbox:
        logger = self.get_flow_run_logger(flow_run)
        job = Job(flow_run.id, attempt, self.work_pool.name, owner_of(flow_run), configuration)
        return FlowRunSandbox(job, partial(logger.info, "%s"), partial(show_waiting, flow_run.id))

    async def _carry_out(
        self, sandbox: FlowRunSandbox, begin: Callable[[], str], started: Callable[[str], None]
    ) -> AGSWorkerResult:
        """Open a sandbox or attach to it, wait for the end of the flow, stop the sandbox, and report what is not known.

        The sandbox is ended before anything is reported: nothing of an attempt runs on behind its final state.
        """
        run = sandbox.job.flow_run_id
        self._active[run] = sandbox
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_cancellations())
        try:
            try:
                await self._in_thread(begin)
            except OvertakenError as error:
                self._logger.info("Flow run %s: %s", run, error)
                started("")
                return AGSWorkerResult(identifier="", status_code=0)
            except Exception:
                if sandbox.cancelled_at is None:
                    raise
                started(sandbox.instance_id)
                await report_cancelled(self.client, run)
                return AGSWorkerResult(identifier=sandbox.instance_id, status_code=0)
            started(sandbox.instance_id)
            message, lines = await self._follow(sandbox)
            keeps = sandbox.job.configuration.keep_on_failure
            if not keeps:
                await self._end(sandbox)
            # A worker that is stopped before this is reported leaves it to the next one.
            state = await state_of(self.client, run)
            failed = state in (StateType.FAILED, StateType.CRASHED) or state not in LEFT
            is_cancelled = state == StateType.CANCELLING or sandbox.cancelled_at is not None
            if failed and not is_cancelled:
                self._logger.warning("Flow run %s failed. %s\n%s", run, message, lines)
            if keeps:
                await self._end(sandbox, keep=failed and sandbox.cancelled_at is None)
            if is_cancelled:
                await report_cancelled(self.client, run)
            elif state is not None and state not in LEFT:
                await report_crashed(self.client, run, f"{message} The flow has reported no end.\n{lines}".strip())
            return AGSWorkerResult(identifier=sandbox.instance_id, status_code=0)
        except asyncio.CancelledError:
            # The worker is being stopped, and the flow goes on.
            sandbox.leave()
            raise
        except Exception:
            # Also what is not known yet must leave no sandbox.
            await self._end(sandbox)
            raise
        finally:
            if self._active.get(run) is sandbox:
                del self._active[run]

    async def _end(self, sandbox: FlowRunSandbox, keep: bool = False) -> None:
        with anyio.CancelScope(shield=True):
            await self._in_thread(partial(sandbox.end, keep))

    async def _follow(self, sandbox: FlowRunSandbox) -> tuple[str, str]:
        """Wait for the end of the flow's process, and return a sentence about it, and its last lines."""
        where = f"in sandbox {sandbox.instance_id}"
        try:
            result = await self._in_thread(sandbox.execute)
        except CommandTimeoutError as error:
            return f"{error} ({where})", shown_end(error.result) if error.result is not None else ""
        except AGSFlowsError as error:
            return f"The process of the flow run {where} was lost: {error}", ""
        except Exception as error:  # noqa: BLE001 - the end of the flow run is reported, whatever it is
            self._logger.exception("Flow run %s %s cannot be followed", sandbox.job.flow_run_id, where)
            return f"The process of the flow run {where} was lost: {type(error).__name__}: {error}", ""
        return f"The process of the flow run {where} ended with exit code {result.exit_code}.", shown_end(result)

    async def _look_for_cancellations(self) -> None:
        """End the flow runs of this worker that are being cancelled, or were deleted."""
        while self._active:
            with suppress(Exception):
                ids = set(self._active)
                known = await runs_with_ids(self.client, ids)
                ending = [self._cancel(run) for run in known if run.state and run.state.type in CANCELLATIONS]
                ending += [self._end_deleted(run) for run in ids - {run.id for run in known}]
                await asyncio.gather(*(asyncio.wait_for(one, LOOK_LIMIT) for one in ending), return_exceptions=True)
            await asyncio.sleep(LOOK_EVERY)

    async def _cancel(self, run: FlowRun) -> None:
        sandbox = self._active.get(run.id)
        if sandbox is None:
            return
        now = time.monotonic()
        if sandbox.cancelled_at is None:
            sandbox.cancelled_at = now
        # A flow that runs is cancelled by Prefect's process in the sandbox, which executes its hooks.
        if run.start_time is None or now - sandbox.cancelled_at >= GRACE - LOOK_EVERY / 2:
            with suppress(AGSFlowsError):
                await self._in_thread(sandbox.cancel)

    async def _end_deleted(self, run: UUID) -> None:
        """End a flow run that the Prefect server does not know any more: it can report nothing."""
        sandbox = self._active.get(run)
        if sandbox is None or await state_of(self.client, run) is not None:
            return
        if sandbox.cancelled_at is None:
            sandbox.cancelled_at = time.monotonic()
            self._logger.warning("Flow run %s was deleted: its sandbox %s is stopped.", run, sandbox.instance_id)
        with suppress(AGSFlowsError):
            await self._in_thread(sandbox.cancel)

    async def _recover(self) -> None:
        """Go on with what a worker of this pool left that has died, and report what it lost."""
        try:
            left = await self._left_sandboxes()
            await self._all_tried((self._recover_sandbox(one), f"sandbox {one.id}") for one in left)
            with_sandbox = {run for one in left for run in flow_runs_of(one.metadata)}
            found = await runs_of_pool(self.client, self.work_pool.name)
            lost = [run for run in found if not self._has(run.id) and str(run.id) not in with_sandbox]
            await self._all_tried((self._recover_run(run), f"flow run {run.name}") for run in lost)
        except Exception as error:  # noqa: BLE001 - the next synchronization looks again
            self._logger.warning("Sandboxes of earlier workers could not be looked for: %s", error)

    async def _tried(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do what is not essential now: the next synchronization tries again."""
        try:
            await asyncio.wait_for(work, LOOK_LIMIT)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._logger.warning("The %s could not be brought up to date: %s: %s", what, type(error).__name__, error)

    async def _all_tried(self, parts: Iterable[tuple[Coroutine[Any, Any, None], str]]) -> None:
        """Recover what earlier workers left: what is wrong with one flow run does not prevent that of the others."""
        await asyncio.gather(*(self._tried(work, f"{what} of an earlier worker") for work, what in parts))

    def _has(self, run: UUID) -> bool:
        """Return True if this worker carries out a flow run, or is submitting it."""
        return run in self._active or run in self._submitting_flow_run_ids

    def _beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start what the worker waits for before it ends."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _left_sandboxes(self) -> list[Instance]:
        control = (await config_of_pool(self)).control_plane()
        marks = {MANAGED_BY_KEY: MANAGED_BY, STEP_NAME: STEP, WORK_POOL: self.work_pool.name}
        found = await self._in_thread(lambda: control.list_instances(metadata=marks))
        return [one for one in found if one.status in LIVE and not one.metadata.get(KEPT)]

    async def _recover_sandbox(self, instance: Instance) -> None:
        run_id = UUID(flow_runs_of(instance.metadata)[0])
        if self._has(run_id) or is_followed(instance):
            return
        try:
            run = await self.client.read_flow_run(run_id)
        except ObjectNotFound:
            # The reaper knows whether it is another server's.
            return
        state = run.state.type if run.state is not None else None
        attempt, following = attempt_in(instance), attempt_of(run)
        if state == StateType.PENDING and attempt == following:
            await self._submit(run)
            return
        sandbox = self._sandbox(run, await configuration_that_was(run, self), attempt)
        # A resumed execution does not raise the count of executions.
        is_running = state == StateType.RUNNING and attempt in (following - 1, following)
        if is_running or state == StateType.CANCELLING:
            self._begin(sandbox, partial(sandbox.attach, instance))
        else:
            sandbox.instance = instance
            await self._in_thread(sandbox.end)

    async def _recover_run(self, run: FlowRun) -> None:
        """Bring a flow run up to date whose worker died before it had a sandbox, or whose sandbox has ended."""
        if run.state is None:
            return
        age = datetime.now(timezone.utc) - run.state.timestamp
        if run.state.type == StateType.PENDING and age > PENDING_FOR:
            await self._submit(run)
        elif run.state.type == StateType.CANCELLING and not run.infrastructure_pid and age > PENDING_FOR:
            await report_cancelled(self.client, run.id)
        elif run.state.type != StateType.PENDING and run.infrastructure_pid:
            config = (await configuration_that_was(run, self)).config or await config_of_pool(self)
            if not await self._in_thread(partial(has_ended, config, run.infrastructure_pid)):
                return
            if run.state.type == StateType.CANCELLING:
                await report_cancelled(self.client, run.id)
            else:
                await report_crashed(self.client, run.id, f"Its sandbox {run.infrastructure_pid} has ended.")

    async def _submit(self, run: FlowRun) -> None:
        """Submit a PENDING flow run, or report that its template is wrong, as Prefect's part of the worker does."""
        try:
            configuration = await configuration_of(run, self)
        except (ValueError, ObjectNotFound) as error:
            left = self._sandbox(run, await configuration_that_was(run, self), attempt_of(run))
            await self._in_thread(left.end)
            await report_crashed(self.client, run.id, f"The template is wrong: {error}")
            return
        sandbox = self._sandbox(run, configuration, attempt_of(run))
        self._begin(sandbox, sandbox.open)

    def _begin(self, sandbox: FlowRunSandbox, begin: Callable[[], str]) -> None:
        """Carry out a flow run that Prefect's part of the worker does not know of."""

        async def carry_out() -> None:
            run = sandbox.job.flow_run_id

            def started(instance_id: str) -> None:
                if instance_id:
                    self._beside(self.client.update_flow_run(run, infrastructure_pid=instance_id))

            try:
                await self._carry_out(sandbox, begin, started)
            except Exception as error:
                if not isinstance(error, AGSFlowsError):
                    self._logger.exception("Flow run %s cannot be carried out", run)
                await report_crashed(self.client, run, f"The sandbox did not start: {type(error).__name__}: {error}")

        self._active[sandbox.job.flow_run_id] = sandbox
        self._beside(carry_out())

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(action, abandon_on_cancel=True, limiter=self._threads)
