"""What a job does: commands, files, and the sandbox that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from ags_flows.errors import ConfigurationError
from ags_flows.models import CustomConfiguration, Resources, ToolSpec
from ags_flows.models.value import Value
from ags_flows.run.assets import check_assets
from ags_flows.run.checked import check
from ags_flows.run.secrets import load_secrets
from ags_flows.session import OnCrash, OnFailure

Snapshots = Literal["none", "before", "after", "both"]


class JobSpec(Value):
    """Commands in a dedicated sandbox.

    Attributes:
        commands: Run one after another, until one fails.
        tool: A tool to create, or the name or id of an existing one. None: the configuration's.
        ensure_tool: Use the tool that has the name of the `ToolSpec`, and create it if there is none. The tool is kept.
        cpu, memory: Resources of the sandbox, if they differ from the tool's.
        uploads: Local path to path in the sandbox.
        downloads: Path in the sandbox to local path.
        env: Environment of the commands.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        cwd: Working directory. None: the user's home.
        user: The user that runs the commands.
        timeout: Seconds for each command. None: no limit.
        lease: How long the sandbox outlives this process. None: the configuration's.
        check: Whether an exit code other than 0 is an error.
        on_failure, on_crash, delete_tool: As of `sandbox_session`.
        retries: How often a command that failed is run again in the same sandbox.
        retry_delay: Seconds before that.
        from_snapshot: Id of a snapshot to start from, instead of a tool.
        snapshot: When the disk of the sandbox is saved.
        assets: Keys of the assets that the job produces.
    """

    model_config = ConfigDict(title="The job")

    commands: tuple[str, ...]
    tool: str | ToolSpec | None = None
    ensure_tool: bool = False
    cpu: str = ""
    memory: str = ""
    uploads: dict[str, str] = Field(default_factory=dict)
    downloads: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    user: Literal["user", "root"] = "user"
    timeout: float | None = None
    lease: str | None = None
    check: bool = True
    on_failure: OnFailure = "stop"
    on_crash: OnCrash = "lease"
    delete_tool: bool | None = None
    retries: int = Field(default=0, ge=0, le=100)
    retry_delay: float = Field(default=10.0, ge=0)
    from_snapshot: str | None = None
    snapshot: Snapshots = "none"
    assets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_executed(self) -> Self:
        if bool(self.cpu) != bool(self.memory):
            raise ValueError(
                f"cpu and memory belong together: give both or none (cpu={self.cpu!r}, memory={self.memory!r})"
            )
        check_assets(self.assets)
        return self

    def check_surroundings(self) -> None:
        """Check what is needed of this machine and of the Prefect server, before anything is started.

        Raises:
            ConfigurationError: An argument breaks its rule, or a path to upload or a Secret block does not exist.
        """
        if not self.commands:
            raise ConfigurationError("command is empty: the list has no command.")
        for command in self.commands:
            check(command=command)
        check(env=self.env, secrets=self.secrets, cwd=self.cwd, timeout=self.timeout)
        for local, remote in [*self.uploads.items(), *((local, remote) for remote, local in self.downloads.items())]:
            check(local=local, remote=remote)
        missing = [local for local in self.uploads if not Path(local).exists()]
        if missing:
            raise ConfigurationError(f"uploads: no such file or directory: {', '.join(missing)}.")
        load_secrets(self.secrets)

    @property
    def custom(self) -> CustomConfiguration | None:
        """What the sandbox has different from its tool."""
        if not self.cpu:
            return None
        return CustomConfiguration(resources=Resources(cpu=self.cpu, memory=self.memory))

    @property
    def deletes_tool(self) -> bool | None:
        """Whether the tool is deleted afterwards; None: if it was created. A snapshot cannot be used without it."""
        if self.delete_tool is None and (self.snapshot != "none" or self.ensure_tool):
            return False
        return self.delete_tool

    def saves_disk(self, when: Literal["before", "after"]) -> bool:
        """Return True if the disk is saved at this time."""
        return self.snapshot in (when, "both")


def commands_of(command: str | Sequence[str]) -> tuple[str, ...]:
    """Return one command, or several, as a tuple."""
    return (command,) if isinstance(command, str) else tuple(command)
