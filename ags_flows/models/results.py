"""Results of commands, transfers, and whole runs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from ags_flows.models.value import Value


class ExecResult(Value):
    """The outcome of a command. An exit code other than 0 is a value, not an error.

    If a signal ended the command, `exit_code` is 128 plus the number of the signal. `stdout` and `stderr` have at most
    the requested number of bytes (head and tail). `stdout_size` and `stderr_size` are the sizes of the whole output in
    bytes.
    """

    MEASURED = frozenset({"seconds", "instance_id", "journal"})

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
        """Whether the exit code is 0."""
        return self.exit_code == 0


class CommandHandle(Value):
    """A handle of a background command in a sandbox, with which any process can wait for it or kill it.

    `secrets` maps variable names to names of Prefect Secret blocks. It never has their values.
    """

    instance_id: str
    # The name of a directory.
    key: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
    command: str
    user: str | None = None
    timeout: float | None = None
    secrets: dict[str, str] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name of the command in logs."""
        return self.command

    @property
    def place_key(self) -> str:
        """Stable key of the command in step keys: its journal, which a retry finds."""
        return self.key


class FileInfo(Value):
    """A file or a directory in a sandbox. `mode` has the permission bits; times are timezone-aware."""

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
    """The result of an upload or a download.

    `files` and `size` (bytes) count everything, `unchanged` the files that were there already and not sent again.
    `left_out` has the names of devices, pipes and sockets, which have no content: the first 100.
    """

    MEASURED = frozenset({"seconds", "unchanged"})

    source: str
    destination: str
    files: int
    size: int
    seconds: float
    unchanged: int = 0
    left_out: tuple[str, ...] = ()


class CleanupReport(Value):
    """The resources that a cleanup stopped or deleted, and one sentence for each failure."""

    instance_id: str | None = None
    tool_id: str | None = None
    problems: tuple[str, ...] = ()


class Step(Value):
    """One step of a run and its duration in seconds."""

    name: str
    seconds: float
    status: Literal["completed", "failed", "skipped"] = "completed"
    message: str = ""


class RunReport(Value):
    """The report of a flow: outcomes of the commands, the instance, and every step with its duration.

    `result` is the outcome of the last command that ran. `results` has the outcome of the last attempt of each
    command. `snapshots` has the ids of the snapshots that were created `before` and `after` the commands.
    """

    MEASURED = frozenset({"seconds", "instance_id", "tool_id", "steps"})

    result: ExecResult
    results: tuple[ExecResult, ...] = ()
    snapshots: dict[str, str] = Field(default_factory=dict)
    instance_id: str
    tool_id: str
    tool_name: str
    steps: tuple[Step, ...] = ()
    downloads: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
