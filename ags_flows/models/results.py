"""What was done: commands, files, and whole runs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from ags_flows.models.value import Value


class ExecResult(Value):
    """The outcome of a command. An exit code other than 0 is a value, not an error.

    `exit_code` is 128 plus the signal's number when a signal ended the command. `stdout` and `stderr` hold at most
    the limit that was asked for (head and tail); the `_size` fields count what was written, in bytes.
    """

    command: str
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    stdout_size: int = 0
    stderr_size: int = 0
    truncated: bool = False
    seconds: float = 0.0
    instance_id: str = ""
    journal: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_code == 0


class CommandHandle(Value):
    """A command that runs in the background of a sandbox: enough to wait for it or to kill it, from any process.

    `secrets` are variable names to names of Prefect Secret blocks, never their values.
    """

    instance_id: str
    key: str
    command: str
    user: str | None = None
    timeout: float | None = None
    secrets: dict[str, str] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """What names it in logs."""
        return self.command

    @property
    def place_key(self) -> str:
        """What stands for the command in steps: its journal, which a retry finds again."""
        return self.key


class FileInfo(Value):
    """A file or a directory in a sandbox. `mode` is octal permission bits; times are aware."""

    path: str
    name: str
    type: Literal["file", "dir", "symlink", "other"]
    size: int = 0
    mode: int = 0
    owner: str = ""
    group: str = ""
    modified_at: datetime | None = None
    symlink_target: str | None = None


class Transfer(Value):
    """What was moved between this machine and a sandbox.

    `files` and `size` (bytes) count everything, `unchanged` the files that were there already and not sent again.
    `left_out` has the names of devices, pipes and sockets, which have no content: the first 100.
    """

    source: str
    destination: str
    files: int
    size: int
    seconds: float
    unchanged: int = 0
    left_out: tuple[str, ...] = ()


class CleanupReport(Value):
    """What a cleanup ended, and in one sentence each what it could not."""

    instance_id: str | None = None
    tool_id: str | None = None
    problems: tuple[str, ...] = ()


class Step(Value):
    """One step of a run and how long it took."""

    name: str
    seconds: float
    status: Literal["completed", "failed", "skipped"] = "completed"
    message: str = ""


class RunReport(Value):
    """What a flow did: the commands' outcomes, where they ran, and every step with its duration.

    `result` is that of the last command that ran; `results` has one for each command, of its last attempt.
    `snapshots` are the ids of snapshots that were made `before` and `after` the commands.
    """

    result: ExecResult
    results: tuple[ExecResult, ...] = ()
    snapshots: dict[str, str] = Field(default_factory=dict)
    instance_id: str
    tool_id: str
    tool_name: str
    steps: tuple[Step, ...] = ()
    downloads: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
