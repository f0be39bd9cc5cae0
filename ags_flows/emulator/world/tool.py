"""A sandbox tool: what instances are started from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import detail
from ags_flows.emulator.world.transitions import Pending

Json = dict[str, Any]


@dataclass
class Tool:
    """One tool; the configurations are kept as the Cloud API's JSON."""

    tool_id: str
    number: int
    region: str
    name: str
    type: str
    created: float
    updated: float
    status: str = "CREATING"
    status_reason: str = ""
    description: str = ""
    persistent: bool = False
    default_timeout: int = 300
    network: Json = field(default_factory=dict)
    tags: list[Json] = field(default_factory=list)
    role_arn: str | None = None
    mounts: list[Json] = field(default_factory=list)
    custom: Json | None = None
    computer: Json | None = None
    logs: Json | None = None
    pending: Pending | None = None

    def shown(self) -> Json:
        """Return the tool as ``SandboxTool`` of the Cloud API."""
        return {
            "ToolId": self.tool_id,
            "ToolName": self.name,
            "ToolType": self.type,
            "Status": self.status,
            "StatusReason": self.status_reason,
            "Description": self.description,
            "Persistent": self.persistent,
            "DefaultTimeoutSeconds": self.default_timeout,
            "NetworkConfiguration": self.network,
            "Tags": self.tags,
            "CreateTime": iso(self.created),
            "UpdateTime": iso(self.updated),
            "RoleArn": self.role_arn,
            "StorageMounts": self.mounts,
            "CustomConfiguration": detail(self.custom),
            "LogConfiguration": self.logs,
            "ComputerConfiguration": self.computer,
        }

    def dump(self) -> Json:
        """Return the tool as JSON values, for the state directory."""
        pending, self.pending = self.pending, None
        try:
            return asdict(self)
        finally:
            self.pending = pending
