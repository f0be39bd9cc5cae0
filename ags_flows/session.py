"""`sandbox_session()`: a sandbox for the length of a `with` block, every step a task run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect import Task
from prefect.exceptions import Pause

from ags_flows import tasks
from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_planes import OpenPlane, close_plane, open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, ConfigurationError, ConflictError, NotFoundError, SupersededError
from ags_flows.lifecycle.lease import Lease, keep_lease
from ags_flows.lifecycle.open_sandbox import release
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
from ags_flows.ownership import GIVEN_UP, KEPT, LEASE, holder_of, relation
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import for_this_run, is_in_execution
from ags_flows.run.interruption import interruptible
from ags_flows.run.logs import run_logger
from ags_flows.run.outcome import Ending, enclosing_run, ending_of
from ags_flows.run.steps import timed
from ags_flows.run.task_options import as_step
from ags_flows.tasks.commands import as_text
from ags_flows.transfer import has_magic

OnFailure = Literal["stop", "keep", "pause"]
OnCrash = Literal["lease", "stop"]
R = TypeVar("R")

MOST_TOOLS = 3
"""How often a session makes its tool, when the last session that used the same one deletes it in between."""


class SandboxSession:
    """A running sandbox and what can be done in it. Made by `sandbox_session`.

    Its methods can be called from any thread: one that was started without the context of the run, as plain threads
    are, works in the context that the session was opened in.

    Attributes:
        instance: The instance.
        steps: Every step so far, with its duration.
    """

    def __init__(self, tool: Tool | str, instance: Instance, config: AGSConfig, steps: list[Step]) -> None:
        self.tool = tool
        self.instance = instance
        self.steps = steps
        self._config = config
        self._context = copy_context()

    @property
    def place_key(self) -> str:
        """What stands for the session in steps: the step that started it, which a retry repeats."""
        return self.instance.place_key

    def run(self, command: str | Sequence[str], **options: Any) -> ExecResult:
        """Run a command. Options are those of `ags_flows.tasks.exec_command`: `timeout`, `env`, `check`, ..."""
        return self._do(f"exec: {as_text(command)}", tasks.exec_command, self.instance, command, **options)

    def start(self, command: str | Sequence[str], **options: Any) -> CommandHandle:
        """Start a command in the background. Options are those of `ags_flows.tasks.start_command`."""
        return self._do(f"start command: {as_text(command)}", tasks.start_command, self.instance, command, **options)

    def wait(self, handle: CommandHandle, **options: Any) -> ExecResult:
        """Wait for a command in the background. Options are those of `ags_flows.tasks.wait_command`."""
        return self._do(f"wait for: {handle.command}", tasks.wait_command, handle, **options)

    def kill(self, handle: CommandHandle) -> None:
        """Kill a command in the background with all that it started."""
        self._do(f"kill: {handle.command}", tasks.kill_command, handle)

    def run_code(self, code: str, **options: Any) -> CodeResult:
        """Run code in the code interpreter. Options are those of `ags_flows.tasks.run_code`."""
        return self._do("run code", tasks.run_code, self.instance, code, **options)

    def upload(self, local: str | Path, remote: str, **options: Any) -> Transfer:
        """Copy a local file, or a directory with all that is in it, into the sandbox.

        Options are those of `ags_flows.tasks.upload_directory`: `user`, `exclude`. A file ignores `exclude`.
        """
        task: Task[..., Transfer] = tasks.upload_directory
        if not Path(local).is_dir():
            task = tasks.upload_file
            options.pop("exclude", None)
        return self._do(f"upload: {local}", task, self.instance, local, remote, **options)

    def download(self, remote: str, local: str | Path, **options: Any) -> Transfer:
        """Copy a file of the sandbox, or a directory with all that is in it, to this machine.

        A pattern such as `out/*.parquet` copies what matches it into the directory `local`. Options are those of
        `ags_flows.tasks.download_directory`: `user`, `exclude`, `links`. A file ignores the last two.
        """
        task = self._how_to_download(remote, options.get("user"))
        if task is tasks.download_file:
            options = {name: value for name, value in options.items() if name not in ("exclude", "links")}
        return self._do(f"download: {remote}", task, self.instance, remote, local, **options)

    def write(self, path: str, content: str | bytes, **options: Any) -> None:
        """Write text or bytes to a file in the sandbox."""
        self._do(f"write: {path}", tasks.write_file, self.instance, path, content, **options)

    def collect(self, downloads: Mapping[str, str], *, user: str | None = None, must: bool = True) -> dict[str, str]:
        """Copy what there is of some files and directories to this machine, and return what was copied.

        Args:
            downloads: Path in the sandbox to local path.
            user: Relative to whose home.
            must: Raise for what is not there. Otherwise, as after a command that failed, log a warning.
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
        return self._do(f"snapshot: {name}", tasks.create_snapshot, self.instance, name, **options)

    def read(self, path: str, **options: Any) -> bytes:
        """Return the content of a file in the sandbox."""
        return self._do(f"read: {path}", tasks.read_file, self.instance, path, **options)

    def list(self, path: str, **options: Any) -> list[FileInfo]:
        """Return what is in a directory of the sandbox."""
        return self._do(f"list: {path}", tasks.list_files, self.instance, path, **options)

    def url(self, port: int | None = None) -> str:
        """Return the URL of a port of the sandbox, by default the configuration's."""
        return tasks.get_instance_url.fn(self.instance, port, config=self._config)

    def _do(self, name: str, task: Task[..., R], *arguments: Any, **options: Any) -> R:
        """Do one step, as a task run inside of a flow run."""

        def step() -> R:
            with timed(self.steps, name) as fail:
                result = as_step(task)(*arguments, config=self._config, **options)
                if isinstance(result, ExecResult) and not result.ok:
                    fail(f"exit code {result.exit_code}")
                return result

        return step() if is_in_execution() else self._context.copy().run(step)

    def _how_to_download(self, remote: str, user: str | None) -> Task[..., Transfer]:
        plane = open_plane(self._config.connection(), self.instance.id).plane
        try:
            is_directory = persistently(lambda: plane.stat(remote, user=user)).type == "dir"
        except NotFoundError:
            # A name that has these characters may also be a file's.
            return tasks.download_files if has_magic(remote) else tasks.download_file
        return tasks.download_directory if is_directory else tasks.download_file


def make_tool(
    spec: ToolSpec,
    config: AGSConfig,
    *,
    for_run: bool,
    steps: list[Step],
    on_created: Callable[[Tool], None],
) -> Tool:
    """Create the tool of a spec, or find it, and wait until it is ACTIVE.

    Args:
        spec: The tool.
        config: Where AGS is.
        for_run: Whether the tool is for this run alone, which deletes it: see `for_this_run`.
        steps: A list that the steps are appended to.
        on_created: Gets the tool before it is ACTIVE, to delete it whatever happens then.
    """
    with timed(steps, f"create tool: {spec.name}"):
        created = as_step(tasks.create_tool)(for_this_run(spec) if for_run else spec, config=config)
    on_created(created)
    with timed(steps, f"wait for tool: {spec.name}"):
        return created if created.ready else as_step(tasks.wait_tool_active)(created, config=config)


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
    config: AGSConfig | str | None = None,
) -> Iterator[SandboxSession]:
    """Give a running sandbox for the length of a `with` block, and end it afterwards.

    While the block is executed, the instance's timeout is kept as a lease: renewed at a quarter of its life by a
    thread of this process. Success, failure, Ctrl-C and cancellation stop the instance. A process that dies stops
    renewing, and AGS ends the sandbox with the lease, unless a retry takes it over before. Where the block calls
    Prefect's `suspend_flow_run`, the sandbox is paused, and goes on with the run after it was resumed.

    Args:
        tool: A `ToolSpec` to create, a tool, its name or its id; by default the configuration's `tool_id`.
        lease: `30s` to `24h`, by default the configuration's (`15m`).
        metadata: Your own names and values on the instance.
        custom: What this instance has different from its tool.
        on_failure: What becomes of the sandbox when the block raises: `stop`, `keep` (until the lease ends), `pause`.
        on_crash: What becomes of it on a SIGTERM that no cancellation sent, such as from a host that goes down: left
            to a retry, and to its `lease`, or `stop`.
        delete_tool: Delete the tool afterwards; by default only one that a `ToolSpec` asks for. The name of such a tool
            ends with a part of the run's id; parallel sessions of the run share it, and the last one deletes it.
        snapshot_id: Start from this snapshot instead of a tool.
        step: Tells identical sessions in one flow run apart, where their order may change between attempts.
        steps: A list that the steps are appended to, for a report that also tells of the end.
        config: Where AGS is: an `AGSConfig`, or the name of a saved block; by default the environment.

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
    config = resolve_config(config)
    if snapshot_id and tool is not None:
        raise ConfigurationError("tool and snapshot_id: give one of them.", hint="A snapshot has its tool already.")
    if tool is None and not snapshot_id and not config.tool_id:
        raise ConfigurationError("No tool is given.", hint="Give a ToolSpec, a tool's name, or AGSConfig(tool_id=...).")
    tool = tool if tool is not None or snapshot_id else config.tool_id
    seconds = parse_duration(lease or config.lease, field="lease")
    steps = [] if steps is None else steps
    creates = isinstance(tool, ToolSpec)
    opening = _Opening(config, steps, seconds, metadata or {}, creates if delete_tool is None else delete_tool)
    run, interruption = enclosing_run(), None
    try:
        with interruptible(opening.wake, run) as interruption:
            yield opening.open(tool, custom, snapshot_id, step)
    except BaseException as error:
        # What an interruption asked for comes before the error that it caused.
        ending = (interruption and interruption.ending) or ending_of(error, run)
        # Without a retry to wait for, a crash is as good as a cancellation.
        opening.close("cancelled" if ending == "crashed" and on_crash == "stop" else ending, on_failure, error)
        raise
    opening.close("completed", on_failure)


class _Opening:
    """What a session has made so far: whatever happens in between, `close` knows what there is to end."""

    def __init__(
        self, config: AGSConfig, steps: list[Step], seconds: int, metadata: Mapping[str, str], delete_tool: bool
    ) -> None:
        self._config = config
        self._steps = steps
        self._seconds = seconds
        self._metadata = {**metadata, LEASE: str(seconds)}
        self._delete_tool = delete_tool
        self._tool: Tool | str | None = None
        self._instance: Instance | None = None
        self._lease: Lease | None = None
        self._plane: OpenPlane | None = None

    def open(
        self,
        tool: ToolSpec | Tool | str | None,
        custom: CustomConfiguration | None,
        snapshot_id: str | None,
        step: str,
    ) -> SandboxSession:
        config = self._config
        started = time.monotonic()
        instance = self._start(tool, custom, snapshot_id, step)
        self._plane = open_plane(config.connection(), instance.id)
        # One that was taken over runs already: the claim was made in it.
        if instance.status != "RUNNING":
            with timed(self._steps, "wait for instance"):
                self._instance = instance = as_step(tasks.wait_instance_running)(instance, config=config)
        self._lease = keep_lease(
            config.control_plane(),
            instance.id,
            self._seconds,
            holder_of(instance.metadata),
            age=time.monotonic() - started,
            on_trouble=run_logger().warning,
            on_lost=self.wake,
        )
        return SandboxSession(self._tool or instance.tool_id, instance, config, self._steps)

    def wake(self, reason: AGSFlowsError | None = None) -> None:
        """Make the waits of the session's threads end within a second, with an error."""
        if self._instance is not None and self._plane is not None:
            close_plane(self._config.connection(), self._instance.id, self._plane, reason)

    def close(self, ending: Ending, on_failure: OnFailure, error: BaseException | None = None) -> None:
        """End what was opened, as the end of the block asks for. Errors are logged, and noted on the block's."""
        try:
            self._close(ending, on_failure)
        except Pause:
            # Prefect raises it at the begin of any task run, once the run is to be suspended.
            if error is not None:
                self._end("cancelled")
                return
            try:
                self._pause()
            except AGSFlowsError as trouble:
                run_logger().warning("The sandbox could not be paused, and is left to its lease: %s", trouble)
            raise
        except Exception as trouble:  # noqa: BLE001 - the clean-up must not replace what the block raised
            run_logger().warning("The sandbox could not be closed: %s", trouble)
            if error is not None:
                error.__dict__.setdefault("__notes__", []).append(f"The sandbox could not be closed: {trouble}")

    def _close(self, ending: Ending, on_failure: OnFailure) -> None:
        if self._lease is not None:
            self._lease.release()
        if ending == "suspended":
            self._pause()
            return
        if ending in ("crashed", "superseded") or self._is_superseded():
            # A retry of this run takes the sandbox over, or has taken it; otherwise the lease ends it.
            self.wake()
            return
        if ending == "failed" and on_failure != "stop" and self._instance is not None:
            self._preserve(self._instance, on_failure)
            return
        if ending == "failed" and self._instance is not None:
            self._give_up(self._instance)
        self._end(ending)

    def _start(
        self,
        tool: ToolSpec | Tool | str | None,
        custom: CustomConfiguration | None,
        snapshot_id: str | None,
        step: str,
    ) -> Instance:
        for attempt in range(MOST_TOOLS):
            self._tool = self._make(tool) if isinstance(tool, ToolSpec) else tool
            try:
                with timed(self._steps, "start instance"):
                    self._instance = as_step(tasks.start_instance)(
                        self._tool,
                        timeout=format_duration(self._seconds),
                        metadata=self._metadata,
                        custom=custom,
                        snapshot_id=snapshot_id,
                        step=step,
                        config=self._config,
                    )
                    return self._instance
            except (ConflictError, NotFoundError):
                # The last session that used the tool may have deleted it since.
                if not isinstance(tool, ToolSpec) or attempt + 1 == MOST_TOOLS:
                    raise
        raise AssertionError("unreachable")

    def _make(self, spec: ToolSpec) -> Tool:
        def made(tool: Tool) -> None:
            self._tool = tool

        return make_tool(spec, self._config, for_run=self._delete_tool, steps=self._steps, on_created=made)

    def _is_superseded(self) -> bool:
        """Whether a later attempt of this run has taken the sandbox over; otherwise none can do so from now on."""
        if self._lease is None or self._instance is None:
            return False
        if isinstance(self._lease.lost, SupersededError):
            return True
        config = self._config
        if release(config.control_plane(), config.connection(), self._instance):
            return False
        run_logger().warning("A later attempt of this run works in sandbox %s: it is left alone.", self._instance.id)
        return True

    def _end(self, ending: Ending) -> None:
        tool = self._tool if self._delete_tool else None
        if self._instance is None and tool is None:
            return
        with timed(self._steps, "cleanup"):
            # A run that is being cancelled gets no new task runs: the plain function does the same without them.
            end = tasks.cleanup.fn if ending == "cancelled" else as_step(tasks.cleanup)
            end(self._instance, tool, config=self._config)

    def _pause(self) -> None:
        """Pause the sandbox of a run that is suspended: memory and files stay, and the run that is resumed goes on."""
        if self._instance is None:
            return
        instance = self._instance
        paused = persistently(lambda: tasks.pause_instance.fn(instance, config=self._config))
        mine, theirs = holder_of(instance.metadata), holder_of(paused.metadata)
        if mine is not None and theirs is not None and relation(mine, theirs) == "stale":
            # The run was resumed in the meantime, and works in this sandbox already.
            persistently(lambda: tasks.resume_instance.fn(instance, config=self._config))
            return
        run_logger().info("The run is suspended; its sandbox %s is paused.", instance.id)

    def _give_up(self, instance: Instance) -> None:
        """Mark the sandbox of a failed attempt: no retry takes it over, even if it cannot be stopped."""
        try:
            self._mark(instance, {GIVEN_UP: "failed"})
        except AGSFlowsError as error:
            run_logger().debug("Sandbox %s could not be marked as given up: %s", instance.id, error)

    def _mark(self, instance: Instance, metadata: dict[str, str]) -> None:
        control = self._config.control_plane()
        persistently(lambda: control.update_instance(instance.id, metadata=metadata))

    def _preserve(self, instance: Instance, on_failure: OnFailure) -> None:
        logger = run_logger()
        try:
            # The reaper spares it then, although its flow run is over, and no retry takes it over.
            self._mark(instance, {KEPT: on_failure})
            tell_instance("kept", instance, how=on_failure)
            if on_failure == "pause":
                persistently(lambda: tasks.pause_instance.fn(instance, config=self._config))
                logger.warning(
                    "The run failed. Its sandbox is paused; resume_instance(%r) wakes it up for inspection.",
                    instance.id,
                )
                return
            ends = persistently(lambda: tasks.get_instance.fn(instance, config=self._config)).expires_at
            logger.warning(
                "The run failed. Its sandbox %s is kept until %s; look inside with: ags-flows exec %s 'ls -la'",
                instance.id,
                f"{ends:%H:%M:%S %Z}" if ends else "it is stopped",
                instance.id,
            )
        except AGSFlowsError as error:
            logger.warning("The sandbox %s could not be kept: %s", instance.id, error)
