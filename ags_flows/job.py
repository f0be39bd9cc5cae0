"""The block of a saved job: what to run in a sandbox, edited and run by operators, or triggered by flows."""

from __future__ import annotations

import os
import sys
import time
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.blocks import AGSConfig
from ags_flows.blocks.credentials import DOCUMENTATION
from ags_flows.blocks.explained import Explained
from ags_flows.errors import ConfigurationError
from ags_flows.models import CommandHandle, ExecResult, RunReport, Step, Timeout, ToolSpec
from ags_flows.models.durations import parse_duration
from ags_flows.run.awaitable import awaitable

if TYPE_CHECKING:
    from ags_flows.session import SandboxSession


class SandboxJob(Explained, JobBlock[RunReport]):
    """One command in a sandbox of its own, with files in and out, saved under a name.

    The flow `ags_flows.flows.run_job` runs a job that is chosen in the Prefect UI. In flows of your own, `trigger`
    starts a job and returns at once, so that several can run side by side.

    A job that was triggered in a flow run is known by that run: where the process dies, the command runs on for as
    long as the sandbox's lease, and a retry of the run triggers nothing anew but finds sandbox, command and output.

    Attributes:
        command: Run by `bash -l -c`.
        tool: Name or id of a sandbox tool.
        image: Makes a tool of that name and image, where there is none; it is kept for the next time.
        uploads: Local path to path in the sandbox, before the command; a directory is taken whole.
        downloads: Path in the sandbox to local path, after the command; a directory is taken whole.
        env: Environment of the command; not for secrets.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        cwd: Working directory in the sandbox; empty: the user's home.
        user: Who runs the command.
        timeout: Time limit of the command, `30s` to `24h`.
        check: Whether an exit code other than 0 is an error.
        on_failure: What becomes of the sandbox of a failed job.
        config: Where AGS is; without: the environment.

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
        description="Makes a tool of the name above from this image, where there is none. Empty: it has to exist.",
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
        description='Variables of the command, as {"MODE": "fast"}. Not for secrets: everybody can read them here.',
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        title="Environment: secrets",
        description='Variable to name of a Prefect Secret block, as {"TOKEN": "warehouse-token"}.',
    )
    cwd: str = Field(default="", title="Working directory", description="In the sandbox. Empty: the user's home.")
    user: Literal["user", "root"] = Field(default="user", title="User", description="Who runs the command.")
    timeout: Timeout = Field(
        default="1h", title="Time limit", description="Of the command, 30s to 24h, such as 15m or 1h30m."
    )
    check: bool = Field(
        default=True, title="Fail with the command", description="An exit code other than 0 fails the run."
    )
    on_failure: Literal["stop", "keep", "pause"] = Field(
        default="stop",
        title="After a failure",
        description="Stop the sandbox, keep it until its lease ends, or pause it for a look.",
    )
    config: AGSConfig | None = Field(
        default=None, title="AGS Config", description="Where AGS is. Without: the environment of whoever runs the job."
    )

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if not self.command.strip():
            raise ValueError("command: it is empty")
        if self.image and not self.tool:
            raise ValueError("tool: an image needs the name of the tool that is made from it")
        return self

    def trigger(self) -> SandboxJobRun:  # type: ignore[override]
        """Start the job and return while its command runs. In asynchronous code: `await job.atrigger()`.

        Until the run is waited for, its sandbox is kept alive by this process. Keep a reference to the run: without
        one the sandbox is stopped.

        Raises:
            ConfigurationError: A local path to upload does not exist; nothing was started.
        """
        missing = [local for local in self.uploads if not Path(local).exists()]
        if missing:
            raise ConfigurationError(f"uploads: no such file or directory: {', '.join(missing)}.")
        return SandboxJobRun(self)

    atrigger = awaitable(trigger)

    def settings(self) -> AGSConfig:
        """Return where AGS is."""
        return self.config or AGSConfig()


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
        from ags_flows.session import sandbox_session

        self._job = job
        self._started = time.monotonic()
        self._steps: list[Step] = []
        self._result: ExecResult | None = None
        self._report: RunReport | None = None
        config = job.settings()
        self._session = sandbox_session(
            self._tool(config), on_failure=job.on_failure, steps=self._steps, config=config, delete_tool=False
        )
        self._sandbox: SandboxSession = self._session.__enter__()
        # Also at the exit of the process, while requests are still possible: an exception that Prefect keeps may hold
        # the last reference until then.
        self._dropped = weakref.finalize(self, _drop, self._session, os.getpid())
        self.instance_id = self._sandbox.instance.id
        self.handle: CommandHandle = self._or_end(self._begin)

    def wait_for_completion(self) -> None:  # type: ignore[override]
        """Wait until the command has ended, its output in the run's log. An exit code other than 0 is no error here.

        Raises:
            CommandTimeoutError: The time limit was reached; the sandbox is ended.
            OutcomeUnknownError: It vanished without an exit code.
            InstanceGoneError: The sandbox ended.
        """
        if self._result is None:
            self._result = self._or_end(lambda: self._sandbox.wait(self.handle))

    await_for_completion = awaitable(wait_for_completion)

    def fetch_result(self) -> RunReport:  # type: ignore[override]
        """Download the files, end the sandbox, and return what was done; waits for the command where nobody did.

        Raises:
            CommandFailedError: The exit code was not 0, and `check` is set. Files were downloaded as far as they go.
        """
        if self._report is None:
            self.wait_for_completion()
            self._report = self._or_end(self._finish)
            self._end(None, None, None)
            self._report = self._report.model_copy(
                update={"steps": tuple(self._steps), "seconds": time.monotonic() - self._started}
            )
        return self._report

    afetch_result = awaitable(fetch_result)

    def _tool(self, config: AGSConfig) -> str | None:
        from ags_flows import tasks
        from ags_flows.run.task_options import as_step

        if not self._job.image:
            return self._job.tool or None
        spec = ToolSpec(name=self._job.tool, image=self._job.image)
        return as_step(tasks.ensure_tool)(spec, config=config).id

    def _begin(self) -> CommandHandle:
        job = self._job
        for local, remote in job.uploads.items():
            self._sandbox.upload(local, remote, user=job.user)
        return self._sandbox.start(
            job.command,
            env=job.env,
            secrets=job.secrets,
            cwd=job.cwd or None,
            user=job.user,
            timeout=float(parse_duration(job.timeout)),
        )

    def _finish(self) -> RunReport:
        from ags_flows.tasks.commands import require_success

        assert self._result is not None
        fetched = self._sandbox.collect(self._job.downloads, user=self._job.user, must=self._result.ok)
        if self._job.check:
            require_success(self._result)
        instance = self._sandbox.instance
        return RunReport(
            result=self._result,
            results=(self._result,),
            instance_id=instance.id,
            tool_id=instance.tool_id,
            tool_name=instance.tool_name,
            downloads=fetched,
        )

    def _or_end(self, action: Any) -> Any:
        """Do something. What it raises ends the sandbox as it would end a session."""
        try:
            return action()
        except BaseException:
            self._end(*sys.exc_info())
            raise

    def _end(self, *error: Any) -> None:
        """End the session, once."""
        if self._dropped.detach() is not None:
            self._session.__exit__(*error)


_inherited: list[AbstractContextManager[SandboxSession]] = []
"""Sessions of the process that this one was forked from: they are never ended here."""


def _drop(session: AbstractContextManager[SandboxSession], pid: int) -> None:
    """End a session that was never left: by the state of its flow run, see `ags_flows.run.outcome.ending_of`."""
    if os.getpid() != pid:
        _inherited.append(session)
        return
    dropped = GeneratorExit()
    session.__exit__(GeneratorExit, dropped, dropped.__traceback__)
