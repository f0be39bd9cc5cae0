"""Specifications: a tool to create, and overrides for one instance."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.models.containers import Computer, Dns, Logs, Network, Port, Probe, Resources, Security
from ags_flows.models.fields import Image, ImageRegistryType, RoleArn, Timeout, ToolName, check_registry_type
from ags_flows.models.mounts import StorageMount
from ags_flows.models.value import Value

CONTAINER_FIELDS = ("image", "image_registry_type", "command", "args", "env", "ports", "probe", "dns", "security")
"""Fields of a `ToolSpec` that describe its container."""

CONTAINER_TYPES = ("custom", "swebench")
"""Types of tools for which the user specifies the container."""


class ToolSpec(Value):
    """A sandbox tool to create: all parameters of CreateSandboxTool.

    For tools of type `custom`, `image=None` means the default image of the configuration, and `resources=None` means
    `Resources()`. For other types, AGS chooses the resources.

    Example:
        ```python
        ToolSpec(name="nightly-etl", image="python:3.11", resources=Resources(cpu="2", memory="4Gi"))
        ```
    """

    name: ToolName
    type: str = "custom"
    image: Image | None = None
    image_registry_type: ImageRegistryType | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    probe: Probe | None = None
    dns: Dns | None = None
    security: Security | None = None
    computer: Computer | None = None
    logs: Logs | None = None
    network: Network = Network()
    mounts: tuple[StorageMount, ...] = Field(default=(), max_length=10)
    tags: dict[str, str] = Field(default_factory=dict)
    role_arn: RoleArn | None = None
    description: str = Field(default="", max_length=200)
    default_timeout: Timeout | None = None
    persistent: bool = False

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


class CustomConfiguration(Value):
    """Overrides of the tool's configuration for one instance (StartSandboxInstance's CustomConfiguration)."""

    image: Image | None = None
    image_registry_type: ImageRegistryType | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    probe: Probe | None = None
    dns: Dns | None = None
    security: Security | None = None

    @model_validator(mode="after")
    def _registry_fits(self) -> Self:
        check_registry_type(self.image, self.image_registry_type)
        return self
