"""A running sandbox, and what can be done in it: each method is one task run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import Cancellation, open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, NotFoundError, WaitCancelledError
from ags_flows.functions import call_function, remote_function
from ags_flows.models import (
    CodeResult,
    CommandHandle,
    ExecResult,
    FileInfo,
    Instance,
    Snapshot,
    Step,
    Tool,
    Transfer,
)
from ags_flows.models.checks import check_user, is_text
from ags_flows.run.awaitable import waits_end_with
from ags_flows.run.checked import checked
from ags_flows.run.holder import is_in_execution
from ags_flows.run.logs import run_logger
from ags_flows.run.steps import timed
from ags_flows.run.task_options import as_step
from ags_flows.tasks.commands import as_text
from ags_flows.transfer import has_magic
from ags_flows.transfer.local_targets import must_stay_in

P = ParamSpec("P")
R = TypeVar("R")


class SandboxSession:
    """A running sandbox and what can be done in it. Made by `sandbox_session`.

    Its methods can be called from any thread: one that was started without the context of the run, as plain threads
    are, works in the context that the session was opened in.

    Attributes:
        instance: The instance.
        steps: Every step so far, with its duration.
    """

    def __init__(
        self,
        tool: Tool | str,
        instance: Instance,
        config: AGSConfig,
        steps: list[Step],
        interrupted: Cancellation | None = None,
    ) -> None:
        self.tool = tool
        self.instance = instance
        self.steps = steps
        self._config = config
        self._context = copy_context() if is_in_execution() else None
        # Set when the flow run, or the process, ends: no further step begins.
        self._interrupted = interrupted or Cancellation()

    def __reduce__(self) -> tuple[Any, ...]:
        """Send what stands for the sandbox to another process, such as one of a process pool."""
        return SandboxSession, (self.tool, self.instance, self._config, [])

    @property
    def place_key(self) -> str:
        """What stands for the session in steps: the step that started it, which a retry repeats."""
        return self.instance.place_key

    @checked()
    def run(self, /, command: str | Sequence[str], **options: Any) -> ExecResult:
        """Run a command. Options are those of `ags_flows.tasks.exec_command`: `timeout`, `env`, `check`, ..."""
        return self._do(f"exec: {as_text(command)}", tasks.exec_command, self.instance, command, **options)

    @checked()
    def start(self, /, command: str | Sequence[str], **options: Any) -> CommandHandle:
        """Start a command in the background. Options are those of `ags_flows.tasks.start_command`."""
        return self._do(f"start command: {as_text(command)}", tasks.start_command, self.instance, command, **options)

    @checked()
    def wait(self, /, handle: CommandHandle, **options: Any) -> ExecResult:
        """Wait for a command in the background. Options are those of `ags_flows.tasks.wait_command`."""
        return self._do(f"wait for: {handle.command}", tasks.wait_command, handle, **options)

    @checked()
    def kill(self, handle: CommandHandle) -> None:
        """Kill a command in the background with all that it started."""
        self._do(f"kill: {handle.command}", tasks.kill_command, handle)

    @checked()
    def run_code(self, /, code: str, **options: Any) -> CodeResult:
        """Run code in the code interpreter. Options are those of `ags_flows.tasks.run_code`."""
        return self._do("run code", tasks.run_code, self.instance, code, **options)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a Python function in the sandbox, and return its result.

        Its source is sent: see `ags_flows.in_sandbox` for what it may use, and what its arguments and results can be.
        A function that `in_sandbox` decorates has the packages, the code, the environment and the time limit that are
        given there.

        Raises:
            FunctionError: The function raised an exception.
            ConfigurationError: The function cannot be sent, or an argument is not JSON.

        Example:
            ```python
            def count(path: str) -> int:
                return len(open(path).readlines())


            with sandbox_session(tool="base") as sandbox:
                sandbox.upload("etl.py", "etl.py")
                assert sandbox.call(count, "etl.py") == 1
            ```
        """
        remote = remote_function(function)
        result: R = self._do(f"call: {remote.name}", call_function, self.instance, remote, args, kwargs)
        return result

    @checked()
    def upload(self, /, local: str | Path, remote: str, **options: Any) -> Transfer:
        """Copy a local file, or a directory with all that is in it, into the sandbox.

        Options are those of `ags_flows.tasks.upload_directory`: `user`, `exclude`, `links`. A file ignores the last
        two.
        """
        task: Task[..., Transfer] = tasks.upload_directory
        if not Path(local).is_dir():
            task, options = tasks.upload_file, _of_a_file(options)
        return self._do(f"upload: {local}", task, self.instance, local, remote, **options)

    @checked()
    def download(self, /, remote: str, local: str | Path, **options: Any) -> Transfer:
        """Copy a file of the sandbox, or a directory with all that is in it, to this machine.

        A pattern such as `out/*.parquet` copies what matches it into the directory `local`. Options are those of
        `ags_flows.tasks.download_directory`: `user`, `exclude`, `links`. A file ignores the last two.
        """
        task = self._how_to_download(remote, options.get("user"))
        if task is tasks.download_file:
            options = _of_a_file(options)
        return self._do(f"download: {remote}", task, self.instance, remote, local, **options)

    @checked()
    def write(self, /, path: str, content: str | bytes, **options: Any) -> None:
        """Write text or bytes to a file in the sandbox."""
        self._do(f"write: {path}", tasks.write_file, self.instance, path, content, **options)

    def collect(self, downloads: Mapping[str, str], *, user: str | None = None, must: bool = True) -> dict[str, str]:
        """Copy what there is of some files and directories to this machine, and return what was copied.

        No link that one of them has brought leads another one out of its local path.

        Args:
            downloads: Path in the sandbox to local path.
            user: Relative to whose home.
            must: Raise for what is not there. Otherwise, as after a command that failed, log a warning.
        """
        fetched = {}
        for remote, local in downloads.items():
            try:
                must_stay_in(map(Path, downloads.values()), Path(local))
                self.download(remote, local, user=user)
                fetched[remote] = local
            except AGSFlowsError as error:
                if must:
                    raise
                run_logger().warning("Not downloaded after the failed command: %s", error)
        return fetched

    @checked()
    def snapshot(self, /, name: str, **options: Any) -> Snapshot:
        """Save the sandbox's disk under a name. Options are those of `ags_flows.tasks.create_snapshot`."""
        return self._do(f"snapshot: {name}", tasks.create_snapshot, self.instance, name, **options)

    @checked()
    def read(self, /, path: str, **options: Any) -> bytes:
        """Return the content of a file in the sandbox."""
        return self._do(f"read: {path}", tasks.read_file, self.instance, path, **options)

    @checked()
    def list(self, /, path: str, **options: Any) -> list[FileInfo]:
        """Return what is in a directory of the sandbox."""
        return self._do(f"list: {path}", tasks.list_files, self.instance, path, **options)

    @checked()
    def url(self, port: int | None = None) -> str:
        """Return the URL of a port of the sandbox, by default the configuration's."""
        return tasks.get_instance_url.fn(self.instance, port, config=self._config)

    def _do(self, name: str, task: Task[..., R], *arguments: Any, **options: Any) -> R:
        """Do one step, as a task run inside of a flow run."""

        def step() -> R:
            if self._interrupted.is_set():
                raise WaitCancelledError(f"{name}: not begun, because the flow run or the process ends.")
            with waits_end_with(self._interrupted), timed(self.steps, name) as fail:
                result = as_step(task)(*arguments, config=self._config, **options)
                if isinstance(result, ExecResult) and not result.ok:
                    fail(f"exit code {result.exit_code}")
                return result

        if is_in_execution():
            if self._context is None:
                # The session came from another process.
                self._context = copy_context()
            return step()
        return step() if self._context is None else self._context.copy().run(step)

    def _how_to_download(self, remote: str, user: str | None) -> Task[..., Transfer]:
        check_user(user)
        if has_magic(remote):
            return tasks.download_files
        if not is_text(remote):
            # No request for a single file can carry this name.
            return tasks.download_directory
        plane = open_plane(self._config.connection(), self.instance.id).plane
        try:
            is_directory = persistently(lambda: plane.stat(remote, user=user)).type == "dir"
        except NotFoundError:
            return tasks.download_file
        return tasks.download_directory if is_directory else tasks.download_file


def _of_a_file(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the transfer of a directory that the transfer of a file has too."""
    return {name: value for name, value in options.items() if name not in ("exclude", "links")}
