"""What AGS answers: tools, instances, snapshots, tokens."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Answer(BaseModel):
    """Base of what AGS answers: frozen, tolerant of fields that came after this version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Tool(Answer):
    """A sandbox tool as AGS describes it. Times are aware; `default_timeout` is in seconds."""

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
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Instance(Answer):
    """A sandbox instance as AGS describes it. Times are aware; `timeout` is in seconds, None without end."""

    id: str
    tool_id: str
    tool_name: str = ""
    status: str
    stop_reason: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    auth_mode: str | None = None
    persistent: bool = False
    timeout: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Snapshot(Answer):
    """A snapshot of an instance."""

    id: str
    name: str = ""
    instance_id: str | None = None
    status: str = "ACTIVE"
    memory: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None


class AccessToken(Answer):
    """What opens one instance's data plane. `token` is masked in text and in JSON: it never leaves the process."""

    instance_id: str
    token: SecretStr
    traffic_token: SecretStr | None = None
    expires_at: datetime | None = None
