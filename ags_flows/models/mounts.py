"""Storage of tools: its source and its mount path."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from ags_flows.models.fields import ImageRegistryType, MountPath, check_image_of_mount
from ags_flows.models.value import Value


class ImageSource(Value):
    """A directory of an image as storage, for example to add envd to a custom image."""

    kind: Literal["image"] = "image"
    image: Annotated[str, BeforeValidator(check_image_of_mount)]
    image_registry_type: ImageRegistryType = "enterprise"
    subpath: str = "/"


class CosSource(Value):
    """A directory of a COS bucket."""

    kind: Literal["cos"] = "cos"
    bucket: str = Field(min_length=1)
    path: str = Field(default="/", pattern="^/")
    endpoint: str | None = None


class CfsSource(Value):
    """A directory of a CFS file system."""

    kind: Literal["cfs"] = "cfs"
    file_system_id: str = Field(min_length=1)
    path: str = Field(default="/", pattern="^/")


class AgentBucketSource(Value):
    """A space of an AgentBucket library."""

    kind: Literal["agent-bucket"] = "agent-bucket"
    library_id: str = Field(min_length=1)
    space_id: str = Field(min_length=1)
    access_domain: str | None = None


class VolumeSource(Value):
    """A volume of AGS, identified by its id (`vol-...`) or its name."""

    kind: Literal["volume"] = "volume"
    volume_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if bool(self.volume_id) == bool(self.name):
            raise ValueError("a volume needs either volume_id or name, not both")
        return self


class VolumeTemplateSource(Value):
    """A volume that is created from a template. Instances with an equal `reuse_key` share one volume."""

    kind: Literal["volume-template"] = "volume-template"
    name: str = Field(min_length=1)
    reuse_key: str | None = None


MountSource = Annotated[
    ImageSource | CosSource | CfsSource | AgentBucketSource | VolumeSource | VolumeTemplateSource,
    Field(discriminator="kind"),
]


class StorageMount(Value):
    """Storage that is mounted at `mount_path` in every instance of the tool."""

    name: str = Field(min_length=1)
    mount_path: MountPath
    source: MountSource
    readonly: bool = False


class MountOption(Value):
    """A change to one of the tool's mounts for one instance. `readonly` can only be changed to True."""

    name: str = Field(min_length=1)
    mount_path: MountPath | None = None
    subpath: str | None = None
    readonly: bool | None = None
