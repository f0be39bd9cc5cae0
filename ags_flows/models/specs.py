"""Specifications: a tool to create, and overrides for one instance."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.models.containers import Computer, Dns, Logs, Network, Port, Probe, Resources, Security
from ags_flows.models.fields import (
    Environment,
    Image,
    ImageRegistryType,
    Name,
    RoleArn,
    Tags,
    Timeout,
    ToolName,
    check_registry_type,
)
from ags_flows.models.mounts import StorageMount
from ags_flows.models.value import Given

CONTAINER_FIELDS = ("image", "image_registry_type", "command", "args", "env", "ports", "probe", "dns", "security")
"""Fields of a `ToolSpec` that describe its container."""

CONTAINER_TYPES = ("custom", "swebench")
"""Types of tools for which the user specifies the container."""


class ToolSpec(Given):
    """A sandbox tool to create: all parameters of CreateSandboxTool.

    For tools of type `custom`, `image=None` means the default image of the configuration, and `resources=None` means
    `Resources()`. For other types, AGS chooses the resources.

    Example:
        ```python
        ToolSpec(name="nightly-etl", image="python:3.11", resources=Resources(cpu="2", memory="4Gi"))
        ```
    """

    name: ToolName = Field(title="Name", description="1 to 50 letters, digits, _ or -; unique in the account.")
    image: Image | None = Field(
        default=None, title="Image", description="Such as python:3.11. None: the image of the AGS Config."
    )
    image_registry_type: ImageRegistryType | None = Field(
        default=None,
        title="Image: registry type",
        description="enterprise (TCR), personal (CCR), custom or system. None: by the image's host, or the AGS Config.",
    )
    resources: Resources | None = Field(
        default=None, title="CPU and memory", description="Of each sandbox. None: 1 core and 2Gi."
    )
    env: Environment = Field(
        default_factory=dict,
        title="Environment",
        description='Variables of every sandbox, as {"STAGE": "test"}. Not for secrets.',
    )
    network: Network = Field(
        default=Network(), title="Network", description="What a sandbox can reach: the internet, a VPC, or nothing."
    )
    mounts: tuple[StorageMount, ...] = Field(
        default=(), max_length=10, title="Mounts", description="Storage in every sandbox, at most 10; needs a role."
    )
    role_arn: RoleArn | None = Field(
        default=None,
        title="Role ARN",
        description="CAM role for private registries and mounts, such as qcs::cam::uin/100000000001:roleName/nightly.",
    )
    command: tuple[str, ...] = Field(
        default=(), title="Command", description="Replaces the entrypoint of the image, one argument an entry."
    )
    args: tuple[str, ...] = Field(default=(), title="Arguments", description="Replace the CMD of the image.")
    ports: tuple[Port, ...] = Field(
        default=(), title="Ports", description="That programs in a sandbox listen on, for the console and for probes."
    )
    probe: Probe | None = Field(
        default=None, title="Readiness probe", description="A request that must succeed before a sandbox is RUNNING."
    )
    default_timeout: Timeout | None = Field(
        default=None, title="Default timeout", description="Of sandboxes started without one, 30s to 24h."
    )
    persistent: bool = Field(
        default=False, title="Persistent", description="Sandboxes have no timeout; excludes a default timeout."
    )
    tags: Tags = Field(
        default_factory=dict, title="Tags", description='Of the tool in Tencent Cloud, as {"team": "data"}.'
    )
    description: str = Field(
        default="", max_length=200, title="Description", description="For people, at most 200 characters."
    )
    type: Name = Field(
        default="custom",
        title="Type",
        description="custom (an image of yours), code-interpreter, browser, mobile, swebench, osworld, waa, aio, ...",
    )
    dns: Dns | None = Field(default=None, title="DNS", description="Name resolution, as in resolv.conf.")
    security: Security | None = Field(
        default=None, title="Security", description="What root in the container may do: privileges and capabilities."
    )
    computer: Computer | None = Field(
        default=None, title="Computer", description="Of tools of type osworld or waa: which version runs."
    )
    logs: Logs | None = Field(
        default=None, title="Log collection", description="Files below /logs that are sent to a CLS topic."
    )

    @model_validator(mode="after")
    def _container_fields_need_a_container(self) -> Self:
        check_registry_type(self.image, self.image_registry_type)
        if self.type not in CONTAINER_TYPES:
            given = [name for name in CONTAINER_FIELDS if getattr(self, name)]
            if given:
                raise ValueError(f"{', '.join(given)}: only for tools of type 'custom', not {self.type!r}")
        if self.persistent and self.default_timeout:
            raise ValueError("default_timeout and persistent exclude each other: persistent instances have no timeout")
        names = [mount.name for mount in self.mounts]
        if len(set(names)) != len(names):
            raise ValueError(f"mounts: names must differ, got {', '.join(names)}")
        paths = [mount.mount_path.rstrip("/") for mount in self.mounts]
        if len(set(paths)) != len(paths):
            raise ValueError(f"mounts: mount paths must differ, got {', '.join(paths)}")
        return self


class CustomConfiguration(Given):
    """Overrides of the tool's configuration for one instance (StartSandboxInstance's CustomConfiguration)."""

    image: Image | None = None
    image_registry_type: ImageRegistryType | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Environment = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    probe: Probe | None = None
    dns: Dns | None = None
    security: Security | None = None

    @model_validator(mode="after")
    def _registry_fits(self) -> Self:
        check_registry_type(self.image, self.image_registry_type)
        return self
