"""What AGS answers: tools, instances, snapshots, images, quotas, tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ags_flows.models.constant import Constant
from ags_flows.ownership import FAMILY


class Answer(Constant, BaseModel):
    """Base of what AGS answers: frozen, tolerant of fields that came after this version."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Tool(Answer):
    """A sandbox tool as AGS describes it. Times are aware; `default_timeout` is in seconds, sizes may be None."""

    id: str
    name: str
    type: str = "custom"
    status: str
    status_reason: str | None = None
    image: str | None = None
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    network_mode: str | None = None
    role_arn: str | None = None
    persistent: bool = False
    default_timeout: int | None = None
    cpu_cores: float | None = None
    memory_gib: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def ready(self) -> bool:
        """Whether instances can be started of it."""
        return self.status in ("ACTIVE", "READY")

    @property
    def place_key(self) -> str:
        """What stands for the tool in steps: its name, which a tool that was created again keeps."""
        return self.name


class EnsuredTool(Tool):
    """A tool that is as it was asked for, and what that took.

    `changed` names the fields that were updated in place, or that needed another tool in place of the old one.
    """

    outcome: Literal["found", "created", "updated", "replaced"] = "found"
    changed: tuple[str, ...] = ()


class Instance(Answer):
    """A sandbox instance as AGS describes it. Times are aware; `timeout` is in seconds, None without end.

    `cpu_cores` and `memory_gib` are None where they are its tool's.
    """

    id: str
    tool_id: str
    tool_name: str = ""
    status: str
    stop_reason: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    auth_mode: str | None = None
    persistent: bool = False
    cpu_cores: float | None = None
    memory_gib: float | None = None
    timeout: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def place_key(self) -> str:
        """What stands for the instance in steps: the step that started it, or its id where other code did."""
        return self.metadata.get(FAMILY, self.id)


class Snapshot(Answer):
    """A snapshot of an instance."""

    id: str
    name: str = ""
    instance_id: str | None = None
    status: str = "ACTIVE"
    memory: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None


class PrecachedImage(Answer):
    """An image that AGS keeps near its machines, so that instances of it start sooner.

    `source` is `EXPLICIT` for those that were asked for; AGS caches others by itself.
    """

    id: str
    image: str
    image_registry_type: str = ""
    digest: str = ""
    status: str = "UNKNOWN"
    message: str = ""
    source: str = ""
    size: int = 0
    created_at: datetime | None = None


class Quota(Answer):
    """How much of something there may be, and how much there is."""

    limit: float
    used: float

    @property
    def free(self) -> float:
        """How much is left, never negative."""
        return max(0.0, self.limit - self.used)


class QuotaOverview(Answer):
    """Quotas of the account in one region. None where AGS does not tell one."""

    tools: Quota | None = None
    instances: Quota | None = None
    paused_instances: Quota | None = None
    cpu_cores: Quota | None = None
    memory_gib: Quota | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        told = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return ", ".join(f"{name.replace('_', ' ')} {q.used:g} of {q.limit:g}" for name, q in told.items())


class AccessToken(Answer):
    """What opens one instance's data plane. `token` is masked in text and in JSON: it never leaves the process."""

    instance_id: str
    token: SecretStr
    traffic_token: SecretStr | None = None
    expires_at: datetime | None = None
