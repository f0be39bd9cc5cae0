"""`sandbox_session()`: a sandbox for the length of a `with` block, every step a task run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from prefect import Task

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import open_plane
from ags_flows.errors import AGSFlowsError, ConfigurationError, NotFoundError
from ags_flows.lifecycle.lease import Lease, keep_lease
from ags_flows.models import (
    CodeResult,
    CommandHandle,
    CustomConfiguration,
    ExecResult,
    FileInfo,
    Instance,
    Snapshot,
    Step,
    Tool,
    ToolSpec,
    Transfer,
)
from ags_flows.models.durations import format_duration, parse_duration
from ags_flows.ownership import KEPT
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import for_this_run
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, ending_of
from ags_flows.run.task_options import as_step
from ags_flows.tasks.commands import as_text
from ags_flows.transfer import has_magic

OnFailure = Literal["stop", "keep", "pause"]
OnCrash = Literal["lease", "stop"]


class SandboxSession:
    """A running sandbox and what can be done in it. Made by `sandbox_session`.

    Attributes:
        instance: The instance.
        steps: Every step so far, with its duration.
    """

    def __init__(self, tool: Tool | str, instance: Instance, config: AGSConfig, steps: list[Step]) -> None:
        """Hold what `sandbox_session` has made ready."""
        self.tool = tool
        self.instance = instance
        self.steps = steps
        self._config = config

    def run(self, command: str | Sequence[str], **options: Any) -> ExecResult:
        """Run a command. Options are those of `ags_flows.tasks.exec_command`: `timeout`, `env`, `check`, ..."""
        with timed(self.steps, f"exec: {as_text(command)}"):
            return as_step(tasks.exec_command)(self.instance, command, config=self._config, **options)

    def start(self, command: str | Sequence[str], **options: Any) -> CommandHandle:
        """Start a command in the background. Options are those of `ags_flows.tasks.start_command`."""
        with timed(self.steps, f"start: {as_text(command)}"):
            return as_step(tasks.start_command)(self.instance, command, config=self._config, **options)

    def wait(self, handle: CommandHandle, **options: Any) -> ExecResult:
        """Wait for a command in the background. Options are those of `ags_flows.tasks.wait_command`."""
        with timed(self.steps, f"wait for: {handle.command}"):
            return as_step(tasks.wait_command)(handle, config=self._config, **options)

    def kill(self, handle: CommandHandle) -> None:
        """Kill a command in the background with all that it started."""
        with timed(self.steps, f"kill: {handle.command}"):
            as_step(tasks.kill_command)(handle, config=self._config)

    def run_code(self, code: str, **options: Any) -> CodeResult:
        """Run code in the code interpreter. Options are those of `ags_flows.tasks.run_code`."""
        with timed(self.steps, "run code"):
            return as_step(tasks.run_code)(self.instance, code, config=self._config, **options)

    def upload(self, local: str | Path, remote: str, **options: Any) -> Transfer:
        """Copy a local file, or a directory with all that is in it, into the sandbox."""
        task = tasks.upload_directory if Path(local).is_dir() else tasks.upload_file
        with timed(self.steps, f"upload: {local}"):
            return as_step(task)(self.instance, local, remote, config=self._config, **options)

    def download(self, remote: str, local: str | Path, **options: Any) -> Transfer:
        """Copy a file of the sandbox, or a directory with all that is in it, to this machine.

        A pattern such as `out/*.parquet` copies what matches it into the directory `local`.
        """
        with timed(self.steps, f"download: {remote}"):
            return as_step(self._how_to_download(remote, options.get("user")))(
                self.instance, remote, local, config=self._config, **options
            )

    def write(self, path: str, content: str | bytes, **options: Any) -> None:
        """Write text or bytes to a file in the sandbox."""
        with timed(self.steps, f"write: {path}"):
            as_step(tasks.write_file)(self.instance, path, content, config=self._config, **options)

    def collect(self, downloads: Mapping[str, str], *, user: str | None = None, must: bool = True) -> dict[str, str]:
        """Copy what there is of some files and directories to this machine, and return what was copied.

        Args:
            downloads: Path in the sandbox to local path.
            user: Relative to whose home.
            must: Raise for what is not there. Otherwise, as after a command that failed, it is only told.
        """
        fetched = {}
        for remote, local in downloads.items():
            try:
                self.download(remote, local, user=user)
                fetched[remote] = local
            except AGSFlowsError as error:
                if must:
                    raise
                run_logger().warning("Not downloaded after the failed command: %s", error)
        return fetched

    def snapshot(self, name: str, **options: Any) -> Snapshot:
        """Save the sandbox's disk under a name. Options are those of `ags_flows.tasks.create_snapshot`."""
        with timed(self.steps, f"snapshot: {name}"):
            return as_step(tasks.create_snapshot)(self.instance, name, config=self._config, **options)

    def read(self, path: str, **options: Any) -> bytes:
        """Return the content of a file in the sandbox."""
        with timed(self.steps, f"read: {path}"):
            return as_step(tasks.read_file)(self.instance, path, config=self._config, **options)

    def list(self, path: str, **options: Any) -> list[FileInfo]:
        """Return what is in a directory of the sandbox."""
        with timed(self.steps, f"list: {path}"):
            return as_step(tasks.list_files)(self.instance, path, config=self._config, **options)

    def url(self, port: int | None = None) -> str:
        """Return the URL of a port of the sandbox, by default the configuration's."""
        return tasks.get_instance_url.fn(self.instance, port, config=self._config)

    def _how_to_download(self, remote: str, user: str | None) -> Task[..., Transfer]:
        plane = open_plane(self._config.connection(), self.instance.id).plane
        try:
            is_directory = plane.stat(remote, user=user).type == "dir"
        except NotFoundError:
            # A name that has these characters may also be a file's.
            return tasks.download_files if has_magic(remote) else tasks.download_file
        return tasks.download_directory if is_directory else tasks.download_file


@contextmanager
def timed(steps: list[Step], name: str) -> Iterator[None]:
    """Append one step to `steps`, with its duration and how it ended."""
    started = time.monotonic()
    short = name.splitlines()[0][:80]
    try:
        yield
    except BaseException as error:
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        steps.append(Step(name=short, seconds=time.monotonic() - started, status="failed", message=message))
        raise
    steps.append(Step(name=short, seconds=time.monotonic() - started))


@contextmanager
def sandbox_session(
    tool: ToolSpec | Tool | str | None = None,
    lease: str | None = None,
    metadata: Mapping[str, str] | None = None,
    custom: CustomConfiguration | None = None,
    on_failure: OnFailure = "stop",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    snapshot_id: str | None = None,
    step: str = "",
    steps: list[Step] | None = None,
    config: AGSConfig | None = None,
) -> Iterator[SandboxSession]:
    """Give a running sandbox for the length of a `with` block, and end it afterwards.

    While the block is executed, the instance's timeout is kept as a lease: renewed at half of its life by a thread
    of this process. Success, failure, Ctrl-C and cancellation stop the instance. A process that dies stops renewing,
    and AGS ends the sandbox with the lease, unless a retry of the flow run adopts it before. Where the block calls
    Prefect's `suspend_flow_run`, the sandbox is paused, and goes on with the run after the answer.

    Args:
        tool: A `ToolSpec` to create, a tool, its name or its id; by default the configuration's `tool_id`.
        lease: `30s` to `24h`, by default the configuration's (`10m`).
        metadata: Your own names and values on the instance.
        custom: What this instance has different from its tool.
        on_failure: What becomes of the sandbox when the block raises: `stop`, `keep` (until the lease ends), `pause`.
        on_crash: What becomes of it on a SIGTERM that no cancellation sent, such as from a host that goes down: left
            to a retry, and to its `lease`, or `stop`.
        delete_tool: Delete the tool afterwards; by default only one that this session created.
        snapshot_id: Start from this snapshot instead of a tool.
        step: Tells identical sessions in one flow run apart.
        steps: A list that the steps are appended to, for a report that also tells of the end.
        config: Where AGS is; by default from the environment.

    Yields:
        The session.

    Example:
        ```python
        @flow
        def nightly():
            with sandbox_session(tool="python-311") as sandbox:
                sandbox.upload("etl.py", "etl.py")
                sandbox.run("python etl.py", check=True)
                sandbox.download("report.csv", "report.csv")
        ```
    """
    config = config or AGSConfig()
    if snapshot_id and tool is not None:
        raise ConfigurationError("tool and snapshot_id: give one of them.", hint="A snapshot has its tool already.")
    if tool is None and not snapshot_id and not config.tool_id:
        raise ConfigurationError("No tool is given.", hint="Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...).")
    tool = tool if tool is not None or snapshot_id else config.tool_id
    seconds = parse_duration(lease or config.lease, field="lease")
    steps = [] if steps is None else steps
    creates = isinstance(tool, ToolSpec)
    opening = _Opening(config, steps, delete_tool=creates if delete_tool is None else delete_tool)
    try:
        yield opening.open(tool, seconds, metadata, custom, snapshot_id, step)
    except BaseException as error:
        ending = ending_of(error)
        # Without a retry to wait for, a crash is as good as a cancellation.
        opening.close("cancelled" if ending == "crashed" and on_crash == "stop" else ending, on_failure)
        raise
    opening.close("completed", on_failure)


class _Opening:
    """What a session has made so far: whatever happens in between, `close` knows what there is to end."""

    def __init__(self, config: AGSConfig, steps: list[Step], delete_tool: bool) -> None:
        self._config = config
        self._steps = steps
        self._delete_tool = delete_tool
        self._tool: Tool | str | None = None
        self._instance: Instance | None = None
        self._lease: Lease | None = None

    def open(
        self,
        tool: ToolSpec | Tool | str | None,
        seconds: int,
        metadata: Mapping[str, str] | None,
        custom: CustomConfiguration | None,
        snapshot_id: str | None,
        step: str,
    ) -> SandboxSession:
        config = self._config
        if isinstance(tool, ToolSpec):
            spec = for_this_run(tool) if self._delete_tool else tool
            with timed(self._steps, f"create tool: {tool.name}"):
                self._tool = as_step(tasks.create_tool)(spec, step=step, config=config)
            with timed(self._steps, f"wait for tool: {tool.name}"):
                self._tool = as_step(tasks.wait_tool_active)(self._tool, config=config)
        else:
            self._tool = tool
        with timed(self._steps, "start instance"):
            self._instance = as_step(tasks.start_instance)(
                self._tool,
                timeout=format_duration(seconds),
                metadata=metadata,
                custom=custom,
                snapshot_id=snapshot_id,
                step=step,
                config=config,
            )
        with timed(self._steps, "wait for instance"):
            if self._instance.status in ("PAUSING", "PAUSED"):
                self._instance = as_step(tasks.resume_instance)(
                    self._instance, timeout=format_duration(seconds), config=config
                )
            else:
                self._instance = as_step(tasks.wait_instance_running)(self._instance, config=config)
        self._lease = self._keep(self._instance, seconds)
        return SandboxSession(self._tool or self._instance.tool_id, self._instance, config, self._steps)

    def close(self, ending: Ending, on_failure: OnFailure) -> None:
        if self._lease is not None:
            self._lease.release()
        if ending == "crashed":
            # Whoever retries this run adopts the sandbox; if nobody does, the lease ends it.
            return
        if ending == "failed" and on_failure != "stop" and self._instance is not None:
            self._preserve(self._instance, on_failure)
            return
        if ending == "suspended" and self._instance is not None:
            # Memory and files stay; the run that goes on after the answer adopts it and wakes it up.
            tasks.pause_instance.fn(self._instance, config=self._config)
            run_logger().info("The run waits for an answer; its sandbox %s is paused.", self._instance.id)
            return
        tool = self._tool if self._delete_tool else None
        if self._instance is None and tool is None:
            return
        with timed(self._steps, "cleanup"):
            # A run that is being cancelled gets no new task runs: the plain function does the same without them.
            end = tasks.cleanup.fn if ending == "cancelled" else as_step(tasks.cleanup)
            end(self._instance, tool, config=self._config)

    def _keep(self, instance: Instance, seconds: int) -> Lease:
        control, logger = self._config.control_plane(), run_logger()
        return keep_lease(
            instance.id,
            seconds,
            renew=lambda: control.update_instance(instance.id, timeout=format_duration(seconds)),
            on_trouble=logger.warning,
        )

    def _preserve(self, instance: Instance, on_failure: OnFailure) -> None:
        logger = run_logger()
        try:
            # The reaper spares it then, although its flow run is over.
            self._config.control_plane().update_instance(instance.id, metadata={**instance.metadata, KEPT: on_failure})
            tell_instance("kept", instance, how=on_failure)
            if on_failure == "pause":
                as_step(tasks.pause_instance)(instance, config=self._config)
                logger.warning(
                    "The run failed. Its sandbox is paused; resume_instance(%r) wakes it up for a look.", instance.id
                )
                return
            ends = as_step(tasks.get_instance)(instance, config=self._config).expires_at
            logger.warning(
                "The run failed. Its sandbox %s is kept until %s; look inside with: ags-flows exec %s 'ls -la'",
                instance.id,
                f"{ends:%H:%M:%S %Z}" if ends else "it is stopped",
                instance.id,
            )
        except AGSFlowsError as error:
            logger.warning("The sandbox %s could not be kept: %s", instance.id, error)
