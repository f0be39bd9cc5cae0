"""A sandbox instance: its data; what happens to it is in `instances`."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.world.clock import Alarm, iso
from ags_flows.emulator.world.configuration import detail
from ags_flows.emulator.world.tokens import Tokens
from ags_flows.emulator.world.transitions import Pending

if TYPE_CHECKING:
    from ags_flows.emulator.world.machine import Machine

Json = dict[str, Any]

ENDED = frozenset({"STOPPED", "FAILED", "STARTING_FAILED", "RESUME_FAILED", "FORK_FAILED"})
"""Statuses of instances that have ended."""

STATUSES = (
    "STARTING",
    "STARTING_FAILED",
    "RUNNING",
    "UNHEALTHY",
    "PAUSING",
    "PAUSED",
    "PAUSE_FAILED",
    "RESUMING",
    "RESUME_FAILED",
    "FORK_FAILED",
    "STOPPING",
    "STOPPED",
    "STOP_FAILED",
    "STOPPING_FAILED",
    "FAILED",
)


@dataclass
class Lifecycle:
    """What happens at the end of the timeout, as E2B's API sets it."""

    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False


@dataclass(eq=False)
class Instance:
    """One instance; the configurations are kept as the Cloud API's JSON."""

    instance_id: str
    number: int
    region: str
    tool_id: str
    tool_name: str
    tool_type: str
    created: float
    updated: float
    tokens: Tokens
    status: str = "STARTING"
    status_reason: str = ""
    stop_reason: str | None = None
    persistent: bool = False
    timeout: int | None = 300
    expires_at: float | None = None
    started_at: float = 0.0
    ended_at: float | None = None
    auth_mode: str = "DEFAULT"
    network_mode: str = "PUBLIC"
    metadata: dict[str, str] = field(default_factory=dict)
    mount_options: list[Json] = field(default_factory=list)
    mounts: list[Json] = field(default_factory=list)
    custom: Json | None = None
    custom_over: Json | None = None
    computer: Json | None = None
    source: str | None = None
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    e2b: Json = field(default_factory=dict)
    """What only the E2B API knows: envVars, network, alias, volumeMounts and the like."""

    paused_memory: bool = True
    """How the latest pause went: with memory or only the files."""

    # Of this process only.
    machine: Machine | None = None
    task: asyncio.Task[None] | None = None
    watcher: asyncio.Task[None] | None = None
    pending: Pending | None = None
    alarm: Alarm | None = None
    samples: deque[Json] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    def shown(self) -> Json:
        """Return the instance as ``SandboxInstance`` of the Cloud API."""
        return {
            "InstanceId": self.instance_id,
            "ToolId": self.tool_id,
            "ToolName": self.tool_name,
            "Status": self.status,
            "Persistent": self.persistent,
            "TimeoutSeconds": self.timeout,
            "ExpiresAt": iso(self.expires_at),
            "StopReason": self.stop_reason or "",
            "CreateTime": iso(self.created),
            "UpdateTime": iso(self.updated),
            "MountOptions": self.mount_options,
            "CustomConfiguration": detail(self.custom),
            "ComputerConfiguration": self.computer,
            "NetworkMode": self.network_mode,
            "Metadata": [{"Name": name, "Value": value} for name, value in self.metadata.items()],
            "AuthMode": self.auth_mode,
        }

    def dump(self) -> Json:
        """Return the instance as JSON values, for the state directory."""
        skipped = ("machine", "task", "watcher", "pending", "alarm", "samples", "tokens", "lifecycle")
        data = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in skipped}
        data["tokens"] = self.tokens.dump()
        data["lifecycle"] = vars(self.lifecycle)
        return data
