"""The execution of a job: the one engine of `provision_and_run`, `run_job` and `SandboxJob`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import AGSFlowsError, CommandFailedError, CommandTimeoutError
from ags_flows.job.page import RunPage
from ags_flows.job.spec import JobSpec
from ags_flows.models import CommandHandle, ExecResult, RunReport, Step, ToolSpec
from ags_flows.run.assets import materialize_assets
from ags_flows.run.logs import run_logger
from ags_flows.run.steps import shorten, timed
from ags_flows.run.task_options import as_step
from ags_flows.session import SandboxSession, sandbox_session
from ags_flows.tasks.commands import require_success


def execute(spec: JobSpec, config: AGSConfig) -> RunReport:
    """Execute a job from its start to its end.

    Raises:
        CommandFailedError: An exit code was not 0, and the job checks it.
        ConfigurationError: A path to upload or a Secret block does not exist; nothing was started.
    """
    execution = JobExecution(spec, config)
    with execution:
        execution.prepare()
        execution.run_commands()
        execution.finish()
    return execution.report()


class JobExecution:
    """One execution of a job, step by step. The sandbox exists for the length of the `with` block.

    A command that failed leaves the block as an error, by which the sandbox ends. Behind the block it is one only if
    the job checks exit codes.

    A retry of the flow run goes on where the last attempt was: it takes over the live sandbox, attaches to the command
    if that still runs, and never runs one a second time in the same sandbox.

    Args:
        spec: The job.
        config: Where AGS is.

    Raises:
        ConfigurationError: A path to upload or a Secret block does not exist; nothing was started.
    """

    def __init__(self, spec: JobSpec, config: AGSConfig) -> None:
        spec.check_surroundings()
        self._spec = spec
        self._config = config
        self._started = time.monotonic()
        self._steps: list[Step] = []
        self._results: list[ExecResult] = []
        self._snapshots: dict[str, str] = {}
        self._page = RunPage(self._steps, self._results, self._snapshots, config.connection())
        self._stack = ExitStack()
        self._begun: CommandHandle | None = None
        self._failure: CommandFailedError | None = None
        self.sandbox: SandboxSession

    def __enter__(self) -> Self:
        """Get the sandbox."""
        spec = self._spec
        with ExitStack() as stack:
            stack.enter_context(self._page)
            session = sandbox_session(
                self._tool(),
                lease=spec.lease,
                custom=spec.custom,
                on_failure=spec.on_failure,
                on_crash=spec.on_crash,
                delete_tool=spec.deletes_tool,
                snapshot_id=spec.from_snapshot,
                steps=self._steps,
                config=self._config,
            )
            self.sandbox = stack.enter_context(session)
            self.belong_to_caller = session.belong_to_caller
            self._page.instance = self.sandbox.instance
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the sandbox and write the page."""
        self._stack.__exit__(kind, error, traceback)
        if self._failure is None or error is not self._failure:
            return False
        self._failure.report = self.report()
        return not self._spec.check

    def prepare(self) -> None:
        """Upload the files, and save the disk if that is asked for."""
        for local, remote in self._spec.uploads.items():
            self.sandbox.upload(local, remote, user=self._spec.user)
        if self._spec.saves_disk("before"):
            self._save_disk("before")

    def begin(self) -> CommandHandle:
        """Start the first command in the background; `run_commands` waits for it."""
        self._begun = self.sandbox.start(self._spec.commands[0], **self._options)
        return self._begun

    def run_commands(self) -> None:
        """Run the commands until one has failed. An exit code other than 0 is not an error here.

        Raises:
            CommandTimeoutError: The time limit was reached, also by the last retry.
        """
        for number, command in enumerate(self._spec.commands, start=1):
            result = self._run(command)
            self._results.append(result)
            if not result.ok:
                self._steps += [
                    Step(name=shorten(f"exec: {one}"), seconds=0.0, status="skipped", message="not run")
                    for one in self._spec.commands[number:]
                ]
                return

    def finish(self) -> None:
        """Download the files, check the exit code, save the disk, and record the assets.

        Raises:
            CommandFailedError: The exit code was not 0. Existing files were downloaded.
        """
        spec, result = self._spec, self._results[-1]
        self._page.downloads = self.sandbox.collect(spec.downloads, user=spec.user, must=result.ok)
        try:
            require_success(result)
        except CommandFailedError as error:
            self._failure = error
            raise
        if spec.saves_disk("after"):
            self._save_disk("after")
        materialize_assets(spec.assets, self._produced())

    def report(self) -> RunReport:
        """Return what was done; complete after the `with` block."""
        instance = self.sandbox.instance
        return RunReport(
            result=self._results[-1],
            results=tuple(self._results),
            snapshots=self._snapshots,
            instance_id=instance.id,
            tool_id=instance.tool_id,
            tool_name=instance.tool_name,
            steps=tuple(self._steps),
            downloads=dict(self._page.downloads),
            seconds=time.monotonic() - self._started,
        )

    @property
    def _options(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "env": spec.env,
            "secrets": spec.secrets,
            "cwd": spec.cwd,
            "user": spec.user,
            "timeout": spec.timeout,
        }

    def _tool(self) -> ToolSpec | str | None:
        tool = self._spec.tool
        if not self._spec.ensure_tool or not isinstance(tool, ToolSpec):
            return tool
        with timed(self._steps, f"ensure tool: {tool.name}"):
            return as_step(tasks.ensure_tool)(tool, config=self._config).id

    def _run(self, command: str) -> ExecResult:
        """Run a command, again if it fails: each attempt is a step, which a retry of the flow run finds again."""
        spec, left = self._spec, self._spec.retries

        def attempt() -> ExecResult:
            begun, self._begun = self._begun, None
            # A command that failed is a failed task run.
            if begun is not None:
                return self.sandbox.wait(begun, check=True)
            return self.sandbox.run(command, check=True, **self._options)

        def log(error: AGSFlowsError) -> None:
            nonlocal left
            left -= 1
            reason = str(error).splitlines()[0]
            run_logger().warning(
                "Next attempt in %g s, %d of %d retries left: %s", spec.retry_delay, left, spec.retries, reason
            )

        try:
            return persistently(
                attempt,
                Backoff(attempts=spec.retries + 1),
                repeat=lambda error: isinstance(error, CommandFailedError),
                on_failure=log,
                sleep=lambda _: time.sleep(spec.retry_delay),
            )
        except CommandFailedError as error:
            if isinstance(error, CommandTimeoutError) or error.result is None:
                raise
            return error.result

    def _save_disk(self, when: Literal["before", "after"]) -> None:
        saved = self.sandbox.snapshot(f"{when}-{self.sandbox.instance.id[:24]}")
        run_logger().info("Saved the disk %s the commands: snapshot %s", when, saved.id)
        self._snapshots[when] = saved.id

    def _produced(self) -> dict[str, Any]:
        instance, result = self.sandbox.instance, self._results[-1]
        files = {remote: _size(Path(local)) for remote, local in self._page.downloads.items()}
        return {
            "sandbox": instance.id,
            "tool": instance.tool_name or instance.tool_id,
            "command": result.command,
            "seconds": round(sum(one.seconds for one in self._results), 3),
            "files": files,
        }


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file())
