"""The parts of a container's configuration: ports, probe, resources, network, and others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.models.fields import Cpu, Memory, Name, PortNumber
from ags_flows.models.value import Given


class Port(Given):
    """A port that the tool declares."""

    name: Name = Field(description="Such as http.")
    port: PortNumber = Field(description="1 to 65535.")
    protocol: Literal["TCP", "UDP"] = Field(default="TCP", description="TCP or UDP.")


class Probe(Given):
    """The HTTP readiness probe that gates the start of an instance."""

    path: str = Field(default="/", pattern="^/", description="Path of the request, from /.")
    port: PortNumber = Field(default=80, description="Port of the sandbox.")
    scheme: Literal["HTTP", "HTTPS"] = Field(default="HTTP", description="HTTP or HTTPS.")
    ready_timeout_ms: int = Field(
        default=30_000, gt=0, description="Milliseconds after which a sandbox that is not ready has failed."
    )
    timeout_ms: int = Field(default=1_000, gt=0, description="Milliseconds for one request.")
    period_ms: int = Field(default=100, gt=0, description="Milliseconds between two requests.")
    success_threshold: int = Field(default=1, ge=1, description="Successes in a row that make a sandbox ready.")
    failure_threshold: int = Field(default=100, ge=1, description="Failures in a row that make it failed.")


class Resources(Given):
    """Resource limits of one instance."""

    cpu: Cpu = Field(default="1", title="CPU", description="Cores, such as 2, 0.5 or 500m.")
    memory: Memory = Field(default="2Gi", title="Memory", description="Such as 512Mi or 4Gi.")
    storage: Literal["1Gi", "5Gi", "10Gi", "20Gi"] | None = Field(
        default=None, title="Disk", description="Of the sandbox. None: what AGS gives."
    )


class Network(Given):
    """Outgoing network access of an instance: `PUBLIC`, `VPC`, or `SANDBOX` (none)."""

    mode: Literal["PUBLIC", "VPC", "SANDBOX"] = Field(
        default="PUBLIC", description="PUBLIC: the internet. VPC: a private network. SANDBOX: nothing."
    )
    subnet_ids: tuple[Name, ...] = Field(default=(), title="Subnet ids", description="Of the VPC, such as subnet-abc.")
    security_group_ids: tuple[Name, ...] = Field(
        default=(), title="Security group ids", description="Of the VPC, such as sg-abc."
    )

    @model_validator(mode="after")
    def _vpc_is_whole(self) -> Self:
        given = bool(self.subnet_ids), bool(self.security_group_ids)
        if self.mode == "VPC" and not all(given):
            raise ValueError("network mode VPC needs both subnet_ids and security_group_ids")
        if self.mode != "VPC" and any(given):
            raise ValueError(f"subnet_ids and security_group_ids need network mode VPC, not {self.mode}")
        return self


class Dns(Given):
    """Name resolution in a container, as in `resolv.conf`."""

    servers: tuple[Name, ...] = Field(default=(), description="IP addresses of name servers.")
    searches: tuple[Name, ...] = Field(default=(), description="Domains that are appended to short names.")
    options: tuple[Name, ...] = Field(default=(), description="Such as ndots:2.")


class Security(Given):
    """Privileges of a container's root user. AGS runs containers privileged unless `privileged` is False."""

    privileged: bool | None = Field(default=None, description="None is true, the default of AGS.")
    add_capabilities: tuple[Name, ...] = Field(default=(), description="Of Linux, such as NET_ADMIN.")
    drop_capabilities: tuple[Name, ...] = Field(default=(), description="Of Linux, such as SYS_ADMIN.")


class Logs(Given):
    """Files under `/logs` to collect, and the CLS topic to send them to. A topic requires a role."""

    files: tuple[Annotated[str, Field(pattern=r"^/logs/[^/\x00]+$")], ...] = Field(
        default=(), max_length=10, description="Paths of the form /logs/NAME, at most 10."
    )
    topic_id: Name | None = Field(default=None, title="Topic id", description="Of CLS; needs a role.")


class Computer(Given):
    """Software of a tool of type `osworld` or `waa`."""

    osworld_version: Name | None = Field(
        default=None, title="OSWorld version", description="For tools of type osworld."
    )
    waa_image_id: Name | None = Field(default=None, title="WAA image id", description="For tools of type waa.")
