"""The parts of a container's configuration: ports, probe, resources, network, and others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.models.fields import Cpu, Memory, PortNumber
from ags_flows.models.value import Value


class Port(Value):
    """A port that the tool declares."""

    name: str = Field(min_length=1)
    port: PortNumber
    protocol: Literal["TCP", "UDP"] = "TCP"


class Probe(Value):
    """The HTTP readiness probe that gates the start of an instance."""

    path: str = Field(default="/", pattern="^/")
    port: PortNumber = 80
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    ready_timeout_ms: int = Field(default=30_000, gt=0)
    timeout_ms: int = Field(default=1_000, gt=0)
    period_ms: int = Field(default=100, gt=0)
    success_threshold: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=100, ge=1)


class Resources(Value):
    """Resource limits of one instance."""

    cpu: Cpu = "1"
    memory: Memory = "2Gi"
    storage: Literal["1Gi", "5Gi", "10Gi", "20Gi"] | None = None


class Network(Value):
    """Outgoing network access of an instance: `PUBLIC`, `VPC`, or `SANDBOX` (none)."""

    mode: Literal["PUBLIC", "VPC", "SANDBOX"] = "PUBLIC"
    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _vpc_is_whole(self) -> Self:
        given = bool(self.subnet_ids), bool(self.security_group_ids)
        if self.mode == "VPC" and not all(given):
            raise ValueError("network mode VPC needs both subnet_ids and security_group_ids")
        if self.mode != "VPC" and any(given):
            raise ValueError(f"subnet_ids and security_group_ids need network mode VPC, not {self.mode}")
        return self


class Dns(Value):
    """Name resolution in a container, as in `resolv.conf`."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Security(Value):
    """Privileges of a container's root user. AGS runs containers privileged unless `privileged` is False."""

    privileged: bool | None = None
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


class Logs(Value):
    """Files under `/logs` to collect, and the CLS topic to send them to. A topic requires a role."""

    files: tuple[Annotated[str, Field(pattern=r"^/logs/[^/\x00]+$")], ...] = Field(default=(), max_length=10)
    topic_id: str | None = None


class Computer(Value):
    """Software of a tool of type `osworld` or `waa`."""

    osworld_version: str | None = None
    waa_image_id: str | None = None
