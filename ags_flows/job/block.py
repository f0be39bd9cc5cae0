"""The block of a saved job: what to run in a sandbox, edited and run by operators, or triggered by flows."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.blocks.credentials import DOCUMENTATION
from ags_flows.blocks.explained import Explained
from ags_flows.models import CommandHandle, RunReport, Timeout, ToolSpec
from ags_flows.models.durations import parse_duration
from ags_flows.run.awaitable import awaitable

if TYPE_CHECKING:
    from ags_flows.job.engine import JobExecution
    from ags_flows.job.spec import JobSpec

R = TypeVar("R")


class SandboxJob(Explained, JobBlock[RunReport]):
    """One command in a dedicated sandbox, with files in and out, saved under a name.

    The flow `ags_flows.flows.run_job` runs a job that is chosen in the Prefect UI. In your flows, `trigger`
    starts a job and returns immediately, so that several can run side by side.

    A job that was triggered in a flow run belongs to that run. If the process dies, the command continues for as long
    as the sandbox's lease, and a retry of the run triggers nothing again: it finds sandbox, command and output.

    Attributes:
        command: Run by `bash -l -c`.
        tool: Name or id of a sandbox tool.
        image: Makes a tool of that name and image, if there is none; it is kept for the next time.
        uploads: Local path to path in the sandbox, before the command; a directory is taken whole.
        downloads: Path in the sandbox to local path, after the command; a directory is taken whole.
        env: Environment of the command; not for secrets.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        cwd: Working directory in the sandbox; empty: the user's home.
        user: The user that runs the command.
        timeout: Time limit of the command, `30s` to `24h`.
        check: Whether an exit code other than 0 is an error.
        cpu, memory: Resources of the sandbox, if they differ from the tool's; both or none.
        retries: How often a command that failed, or took too long, is run again in the same sandbox.
        retry_delay: Seconds before that.
        lease: How long the sandbox outlives the process of the flow. Empty: that of `config`.
        on_failure: What happens to the sandbox when the job fails, also without `check`.
        on_crash: What happens to the sandbox when the process of the flow is killed.
        from_snapshot: Id of a snapshot to start from, instead of a tool.
        snapshot: When the disk of the sandbox is saved: `before` or `after` the command, or both.
        assets: Keys of the Prefect assets that the job produces.
        config: Where AGS is, or the name of a saved block; without: the environment.

    Example:
        ```python
        from ags_flows import SandboxJob

        SandboxJob(command="python3 --version", tool="etl", image="python:3.11").save("BLOCK_NAME", overwrite=True)
        job = SandboxJob.load("BLOCK_NAME")
        run = job.trigger()
        run.wait_for_completion()
        print(run.fetch_result().result.stdout)
        ```
    """

    _block_type_name = "AGS Sandbox Job"
    _block_type_slug = "ags-sandbox-job"
    _documentation_url = DOCUMENTATION
    _description = "A command in a sandbox of AGS, with files in and out: edited here, run by the flow run-job."

    command: str = Field(title="Command", description="Run by bash, such as python etl.py --day yesterday.")
    tool: str = Field(default="", title="Tool", description="Name or id. Empty: that of the AGS Config.")
    image: str = Field(
        default="",
        title="Tool: image",
        description="Makes a tool of the name above from this image, if there is none. Empty: it has to exist.",
    )
    uploads: dict[str, str] = Field(
        default_factory=dict,
        title="Files: upload",
        description='Local path to path in the sandbox, as {"etl.py": "etl.py"}; a directory is taken whole.',
    )
    downloads: dict[str, str] = Field(
        default_factory=dict,
        title="Files: download",
        description='Path in the sandbox to local path, as {"out": "results"}; a directory is taken whole.',
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        title="Environment",
        description='Variables of the command, as {"MODE": "fast"}. Not for secrets: every user can read them here.',
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        title="Environment: secrets",
        description='Variable to name of a Prefect Secret block, as {"TOKEN": "warehouse-token"}.',
    )
    cwd: str = Field(default="", title="Working directory", description="In the sandbox. Empty: the user's home.")
    user: Literal["user", "root"] = Field(default="user", title="User", description="The user that runs the command.")
    timeout: Timeout = Field(
        default="1h", title="Time limit", description="Of the command, 30s to 24h, such as 15m or 1h30m."
    )
    check: bool = Field(
        default=True, title="Fail with the command", description="An exit code other than 0 fails the run."
    )
    retries: int = Field(
        default=0,
        ge=0,
        le=100,
        title="Retries of the command",
        description="How often a command that failed is run again in the same sandbox.",
    )
    retry_delay: float = Field(default=10.0, ge=0, title="Retries: delay", description="Seconds before each retry.")
    cpu: str = Field(
        default="", title="Sandbox: CPU", description="Cores, such as 2, 0.5 or 500m. Empty: those of the tool."
    )
    memory: str = Field(
        default="", title="Sandbox: memory", description="Such as 512Mi or 4Gi; given together with the CPU."
    )
    lease: str = Field(
        default="",
        title="Sandbox: lease",
        description="How long it outlives a flow that was killed, 30s to 24h. Empty: that of the AGS Config.",
    )
    on_failure: Literal["stop", "keep", "pause"] = Field(
        default="stop",
        title="After a failure",
        description="Stop the sandbox, keep it until its lease ends, or pause it.",
    )
    on_crash: Literal["lease", "stop"] = Field(
        default="lease",
        title="After a crash",
        description="Leave the sandbox to a retry and to its lease, or stop it.",
    )
    from_snapshot: str = Field(
        default="", title="Snapshot to start from", description="Id of a snapshot, instead of a tool."
    )
    snapshot: Literal["none", "before", "after", "both"] = Field(
        default="none", title="Save a snapshot", description="Of the disk: before the command, after it, or both."
    )
    assets: list[str] = Field(
        default_factory=list,
        title="Assets",
        description="Keys of the Prefect assets that the job produces, such as s3://bucket/orders.parquet.",
    )
    config: AGSConfig | None = Field(
        default=None,
        title="AGS Config",
        description="Where AGS is. Empty: the environment of the job's process.",
    )

    @field_validator("config", mode="before")
    @classmethod
    def _by_name(cls, config: Any) -> Any:
        return resolve_config(config) if isinstance(config, str) else config

    @model_validator(mode="after")
    def _can_be_executed(self) -> Self:
        if not self.command.strip():
            raise ValueError("command: it is empty")
        if self.image and not self.tool:
            raise ValueError("tool: an image needs the name of the tool that is made from it")
        if self.lease:
            parse_duration(self.lease, field="lease")
        self.spec()
        return self

    @property
    def saved_name(self) -> str:
        """The name under which the block was saved, empty for one that was not."""
        return self._block_document_name or ""

    def spec(self) -> JobSpec:
        """Return what the job does."""
        # Here, and not above: the block is imported with the package, which has to be fast.
        from ags_flows.job.spec import JobSpec

        return JobSpec(
            commands=(self.command,),
            tool=ToolSpec(name=self.tool, image=self.image) if self.image else self.tool or None,
            ensure_tool=bool(self.image),
            delete_tool=False,
            cwd=self.cwd or None,
            timeout=float(parse_duration(self.timeout)),
            lease=self.lease or None,
            from_snapshot=self.from_snapshot or None,
            assets=tuple(self.assets),
            **{name: getattr(self, name) for name in SHARED},
        )

    def trigger(self) -> SandboxJobRun:  # type: ignore[override]
        """Start the job and return while its command runs. In asynchronous code: `await job.atrigger()`.

        Until the run is waited for, its sandbox is kept alive by this process. Keep a reference to the run: without
        one the sandbox is stopped.

        Raises:
            ConfigurationError: A local path to upload does not exist; nothing was started.
        """
        return SandboxJobRun(self)

    atrigger = awaitable(trigger)


class SandboxJobRun(JobRun[RunReport]):
    """One run of a job.

    Its sandbox is stopped when the result is fetched, when a method raises, when the last reference to this object is
    gone, or when the process exits. If the flow run that triggered it has crashed, the sandbox is left instead: to a
    retry of the flow run, which takes it over, and to its lease. That holds for every job that was triggered, not only
    for the one that was waited for.

    Attributes:
        instance_id: The sandbox.
        handle: The command: `ags_flows.tasks.wait_command` and `kill_command` take it, in any process.
    """

    def __init__(self, job: SandboxJob) -> None:
        """Start the job; `SandboxJob.trigger` is how to call this."""
        from ags_flows.job.engine import JobExecution

        self._is_complete = False
        self._report: RunReport | None = None
        self._execution = JobExecution(job.spec(), job.config or AGSConfig())
        self._execution.__enter__()
        # Also at the exit of the process, while requests are still possible: an exception that Prefect keeps may hold
        # the last reference until then.
        self._dropped = weakref.finalize(self, _drop, self._execution, os.getpid())
        self.instance_id = self._execution.sandbox.instance.id
        self._or_end(self._execution.prepare)
        self.handle: CommandHandle = self._or_end(self._execution.begin)

    def wait_for_completion(self) -> None:  # type: ignore[override]
        """Wait until the command has ended, and log its output. An exit code other than 0 is not an error here.

        Raises:
            CommandTimeoutError: The time limit was reached; the sandbox is ended.
            OutcomeUnknownError: It vanished without an exit code.
            InstanceGoneError: The sandbox ended.
        """
        if not self._is_complete:
            self._or_end(self._execution.run_commands)
            self._is_complete = True

    await_for_completion = awaitable(wait_for_completion)

    def fetch_result(self) -> RunReport:  # type: ignore[override]
        """Download the files, end the sandbox, and return what was done; waits for the command if that still runs.

        Raises:
            CommandFailedError: The exit code was not 0, and `check` is set. Existing files were downloaded.
        """
        if self._report is None:
            self.wait_for_completion()
            self._execution.belong_to_caller()
            with ExitStack() as stack:
                stack.push(self._execution)
                self._dropped.detach()
                self._execution.finish()
            self._report = self._execution.report()
        return self._report

    afetch_result = awaitable(fetch_result)

    def _or_end(self, action: Callable[[], R]) -> R:
        """Do something. What it raises ends the sandbox as it would end a session."""
        self._execution.belong_to_caller()
        try:
            return action()
        except BaseException:
            if self._dropped.detach() is not None:
                self._execution.__exit__(*sys.exc_info())
            raise


SHARED = (
    "uploads",
    "downloads",
    "env",
    "secrets",
    "user",
    "check",
    "cpu",
    "memory",
    "retries",
    "retry_delay",
    "on_failure",
    "on_crash",
    "snapshot",
)
"""Fields that are the same in the block and in `JobSpec`."""

_inherited: list[JobExecution] = []
"""Executions of the process that this one was forked from: they are never ended here."""


def _drop(execution: JobExecution, pid: int) -> None:
    """End an execution that was never left: by the state of its flow run, see `ags_flows.run.outcome.ending_of`."""
    if os.getpid() != pid:
        _inherited.append(execution)
        return
    dropped = GeneratorExit()
    execution.__exit__(GeneratorExit, dropped, dropped.__traceback__)
