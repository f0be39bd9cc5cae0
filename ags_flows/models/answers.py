"""Responses of AGS: tools, instances, snapshots, images, quotas, tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ags_flows.models.constant import Constant
from ags_flows.ownership import FAMILY


class Answer(Constant, BaseModel):
    """Base of all responses of AGS: frozen; fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Tool(Answer):
    """A sandbox tool as AGS describes it.

    Times are timezone-aware. `default_timeout` is in seconds. `cpu_cores` and `memory_gib` may be None.
    """

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
        """Whether instances of the tool can be started."""
        return self.status in ("ACTIVE", "READY")

    @property
    def place_key(self) -> str:
        """Stable key of the tool in step keys: its name, which does not change when the tool is created again."""
        return self.name


class EnsuredTool(Tool):
    """A tool that matches its spec, and what was done to achieve that.

    `changed` has the names of the fields that were updated in place, or because of which the tool was replaced.
    """

    outcome: Literal["found", "created", "updated", "replaced"] = "found"
    changed: tuple[str, ...] = ()


class Instance(Answer):
    """A sandbox instance as AGS describes it.

    Times are timezone-aware. `timeout` is in seconds; None means no timeout. `cpu_cores` and `memory_gib` are None if
    the instance has the size of its tool.
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
        """Stable key of the instance in step keys: the family of the step that started it, otherwise its id."""
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
    """An image in the cache of AGS, with which instances start faster.

    `source` is `EXPLICIT` for images that a user requested. AGS caches other images automatically.
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
    """The limit and the current use of one resource."""

    limit: float
    used: float

    @property
    def free(self) -> float:
        """The unused amount, never negative."""
        return max(0.0, self.limit - self.used)


class QuotaOverview(Answer):
    """Quotas of the account in one region. A quota that AGS does not report is None."""

    tools: Quota | None = None
    instances: Quota | None = None
    paused_instances: Quota | None = None
    cpu_cores: Quota | None = None
    memory_gib: Quota | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        known = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return ", ".join(f"{name.replace('_', ' ')} {q.used:g} of {q.limit:g}" for name, q in known.items())


class AccessToken(Answer):
    """The access token of one instance's data plane.

    `token` is masked in text and in JSON, so that it never leaves the process.
    """

    instance_id: str
    token: SecretStr
    traffic_token: SecretStr | None = None
    expires_at: datetime | None = None
