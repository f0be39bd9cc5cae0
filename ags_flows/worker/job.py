"""One flow run in a separate sandbox: start it, run the flow there as a durable command, end it.

All of it is synchronous and blocks: the worker calls it in threads. The step key of sandbox and command is made of the
flow run and its attempt alone. So whichever worker submits an attempt again gets the same sandbox and the same command,
and a second one is never started.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.errors import AGSFlowsError, ConfigurationError, WaitCancelledError
from ags_flows.lifecycle.image_tool import image_tool
from ags_flows.lifecycle.leased_sandbox import LeasedSandbox, lease_sandbox, open_leased
from ags_flows.lifecycle.open_sandbox import Launch
from ags_flows.models import ExecResult, Instance, Network
from ags_flows.models.durations import format_duration, parse_duration
from ags_flows.ownership import (
    FAMILY,
    KEPT,
    LIVE,
    OWNER_HOST,
    OWNER_PID,
    Frame,
    Holder,
    Owner,
    Place,
    Step,
    digest,
    holder_of,
)
from ags_flows.run.holder import Execution
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets
from ags_flows.tasks import ensure_tool
from ags_flows.transfer import upload_directory, upload_file
from ags_flows.worker import patience
from ags_flows.worker.configuration import AGSWorkerJobConfiguration
from ags_flows.worker.look import look
from ags_flows.worker.patience import is_transient
from ags_flows.worker.runs import is_due

T = TypeVar("T")

STEP = "flow run"
WORK_POOL = "work-pool"
"""Metadata: the work pool whose worker started the sandbox."""

PATIENCE = Backoff(attempts=None, patience=900.0, first_pause=1.0, longest_pause=30.0)
"""How long a submission is repeated while the quota, the rate limit or the cloud refuses it."""

KEPT_OUTPUT = 16_384


class OvertakenError(AGSFlowsError):
    """Another worker has started the attempt: it is not this worker's."""


@dataclass(frozen=True)
class Job:
    """An attempt at a flow run.

    Attributes:
        flow_run_id: The flow run.
        attempt: Greater in every later attempt.
        pool: Name of the work pool.
        owner: Whose the sandbox is.
        configuration: What the flow run gets.
    """

    flow_run_id: UUID
    attempt: int
    pool: str
    owner: Owner
    configuration: AGSWorkerJobConfiguration

    @property
    def step(self) -> Step:
        """The step that starts the sandbox: the same in every worker."""
        frame = Frame("flow", self.flow_run_id.hex, self.attempt)
        call = digest(STEP, self.flow_run_id.hex, str(self.attempt))
        return Execution((frame,), Place(), self.owner).step(STEP, "", call=call)


def attempt_in(instance: Instance) -> int:
    """Return the attempt that a sandbox was started for, 0 if it is not known."""
    holder: Holder | None = holder_of(instance.metadata)
    return holder.frames[0].attempt if holder is not None else 0


class FlowRunSandbox:
    """The sandbox of an attempt at a flow run.

    Args:
        job: The attempt.
        note: Logs a sentence for the flow run.
        on_waiting: Gets the reason when the submission has to wait.
    """

    def __init__(self, job: Job, note: Callable[[str], None], on_waiting: Callable[[str], None]) -> None:
        self.job = job
        self.instance: Instance | None = None
        self.is_executing = False
        self.cancelled_at: float | None = None
        self._note = note
        self._on_waiting = on_waiting
        self._config = job.configuration.config or AGSConfig()
        self._leased: LeasedSandbox | None = None
        self._command: DurableCommand | None = None
        self._given_up = threading.Event()
        self._secrets: Mapping[str, str] = {}

    @property
    def instance_id(self) -> str:
        """The sandbox's id, empty before there is one."""
        return self.instance.id if self.instance is not None else ""

    def open(self) -> str:
        """Start the sandbox, or find the one of this attempt, and lay into it what the flow needs.

        Returns:
            The instance's id.

        Raises:
            ConfigurationError: The template is wrong, or the sandbox cannot reach the Prefect API.
            UnsupportedError: The image has no Prefect.
            WaitCancelledError: The flow run was cancelled.
            OvertakenError: Another worker has started the attempt.
            AGSFlowsError: The cloud refused it permanently, or for too long.
        """
        try:
            self._secrets = self._asked(lambda: load_secrets(self.job.configuration.secrets))
            self._stop_earlier()
            self._leased = persistently(self._start, PATIENCE, on_failure=self._wait, sleep=self._sleep)
            self.instance = self._leased.instance
            self._note(f"The flow run has the sandbox {self.instance.id} ({self.instance.tool_name}).")
            # It may trust a certificate that is uploaded.
            self._upload(self._leased.plane.plane)
            look(self._leased.plane.plane, self._environment(), self._redactor())
        except OvertakenError:
            raise
        except BaseException:
            self.end()
            raise
        return self.instance.id

    def attach(self, instance: Instance) -> str:
        """Go on with a sandbox in which the flow runs already, and return its id."""
        self.instance = instance
        with suppress(ConfigurationError):
            # They only mask what the flow prints: it has them already, also if a block was deleted since.
            self._secrets = load_secrets(self.job.configuration.secrets)
        began, seconds, control = time.monotonic(), self._lease_seconds(), self._config.control_plane()
        metadata = {OWNER_HOST: self.job.owner.host, OWNER_PID: str(self.job.owner.pid)}
        persistently(lambda: control.update_instance(instance.id, timeout=format_duration(seconds), metadata=metadata))
        self._leased = lease_sandbox(
            control,
            instance,
            seconds,
            self.job.step.holder,
            age=time.monotonic() - began,
            taken_over=True,
            on_trouble=self._note,
        )
        self._note(f"The worker goes on with the flow run in sandbox {instance.id}.")
        return instance.id

    def execute(self) -> ExecResult:
        """Run the flow in the sandbox, or attach to it if it runs, and wait for its end.

        Raises:
            CommandTimeoutError: The time limit was reached.
            InstanceGoneError: The sandbox ended.
            OutcomeUnknownError: The process vanished.
        """
        assert self._leased is not None
        configuration, plane = self.job.configuration, self._leased.plane
        command = Command(
            configuration.command or "prefect flow-run execute",
            env=self._environment(),
            timeout=configuration.timeout,
            more_time="Give it more time with the variable timeout.",
        )
        following = Following(None, self._note, plane.cancelled, KEPT_OUTPUT)
        self._command = DurableCommand(plane.plane, command, following).start(self.job.step)
        self.is_executing = True
        redactor = self._redactor()
        with redactor.errors():
            return redactor.data(self._command.wait())

    def cancel(self) -> None:
        """End the flow's process, or the start of the sandbox, and let `open` or `execute` return."""
        self._given_up.set()
        if self._command is not None:
            with suppress(AGSFlowsError):
                self._command.kill()
        else:
            self.end()

    def leave(self) -> None:
        """Let go of the sandbox: the flow in it goes on, and a worker finds it by its metadata."""
        self._given_up.set()
        if self._leased is not None:
            self._leased.leave()

    def end(self, keep: bool = False) -> None:
        """Stop the sandbox, whatever state it is in; or keep it until its lease ends. Errors are logged.

        One that is still starting, or whose start had no response, is looked for by its metadata.
        """
        if self._leased is not None:
            self._leased.lease.release()
        try:
            control = self._config.control_plane()
            if keep and self.instance is not None:
                kept = self.instance.id
                persistently(lambda: control.update_instance(kept, metadata={KEPT: "keep"}))
                self._note(f"The sandbox {kept} is kept until its lease ends: ags-flows exec {kept} 'ls -la'")
                return
            found = [self.instance] if self.instance is not None else self._of_family()
            for one in found:
                self.instance = one
                close_plane(self._config.connection(), one.id)
                persistently(lambda: control.stop_instance(one.id))  # noqa: B023 - called here
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow run's end is reported
            self._note(f"The sandbox {self.instance_id} is left to its lease and the reaper: {error}")

    def _environment(self) -> dict[str, str]:
        return {**self.job.configuration.environment(), **self._secrets}

    def _redactor(self) -> Redactor:
        return Redactor([*self._secrets.values(), *self.job.configuration.credentials()])

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask the Prefect server until it responds."""
        while True:
            try:
                return ask()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._note(f"The Prefect server does not respond, and is asked again: {error}")
            self._sleep(patience.FIRST_PAUSE)

    def _start(self) -> LeasedSandbox:
        config, job = self._config, self.job
        # Also after a wait for the quota, and one for the Prefect server.
        if not self._asked(lambda: is_due(job.flow_run_id, job.attempt)):
            raise OvertakenError("Another worker has started the attempt.")
        seconds = self._lease_seconds()
        launch = Launch(
            step=job.step,
            owner=job.owner,
            arguments={"tool": self._tool()},
            timeout=format_duration(seconds),
            lease=seconds,
            metadata={WORK_POOL: job.pool},
            startup_timeout=config.startup_timeout,
        )
        return open_leased(config.control_plane(), launch, [], on_trouble=self._note)

    def _lease_seconds(self) -> int:
        return parse_duration(self.job.configuration.lease or self._config.lease, field="lease")

    def _tool(self) -> str:
        configuration = self.job.configuration
        if configuration.image and configuration.tool:
            raise ConfigurationError(
                "image and tool: give one of them.", hint="Change the work pool or the deployment."
            )
        if configuration.image:
            network = Network(mode=configuration.network)
            spec = image_tool("flow", configuration.image, configuration.cpu, configuration.memory, network)
            return ensure_tool.fn(spec, replace=False, config=self._config).id
        tool = configuration.tool or self._config.tool_id
        if not tool:
            raise ConfigurationError(
                "The work pool names no image and no tool.",
                hint="Set one of the variables image and tool of the work pool, or as a job variable.",
            )
        return tool

    def _upload(self, plane: DataPlane) -> None:
        for local, remote in self.job.configuration.uploads.items():
            if not Path(local).exists():
                raise ConfigurationError(f"uploads: there is no {local!r} on the machine of the worker.")
            upload = upload_directory if Path(local).is_dir() else upload_file
            upload(plane, Path(local), remote)

    def _of_family(self) -> list[Instance]:
        known = self._config.control_plane().list_instances(metadata={FAMILY: self.job.step.family})
        return [one for one in known if one.status in LIVE and attempt_in(one) == self.job.attempt]

    def _stop_earlier(self) -> None:
        """Stop what an earlier attempt left: its process must not run beside this one's."""
        control = self._config.control_plane()
        for one in control.list_instances(metadata={FAMILY: self.job.step.family}):
            if one.status in LIVE and attempt_in(one) < self.job.attempt and not one.metadata.get(KEPT):
                self._note(f"The sandbox {one.id} of an earlier attempt is stopped.")
                persistently(lambda: control.stop_instance(one.id))  # noqa: B023 - called here

    def _wait(self, error: AGSFlowsError) -> None:
        self._note(f"Waiting for a sandbox: {error}")
        self._on_waiting(str(error))

    def _sleep(self, seconds: float) -> None:
        if self._given_up.wait(seconds):
            raise WaitCancelledError("The flow run was cancelled before it had a sandbox.")


def shown_end(result: ExecResult, lines: int = 50) -> str:
    """Return the last lines that a flow's process wrote."""
    text = (result.stdout + result.stderr).strip().splitlines()
    return "\n".join(text[-lines:])
