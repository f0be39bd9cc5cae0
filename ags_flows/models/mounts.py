"""Storage of tools: where it comes from and where it appears."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from ags_flows.models.fields import ImageRegistryType, MountPath, check_image_of_mount
from ags_flows.models.value import Value


class ImageSource(Value):
    """A directory of an image, as storage: how envd gets into a custom image."""

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
    """A volume of AGS, by its id (`vol-...`) or its name."""

    kind: Literal["volume"] = "volume"
    volume_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if bool(self.volume_id) == bool(self.name):
            raise ValueError("a volume is named by volume_id or by name, and not by both")
        return self


class VolumeTemplateSource(Value):
    """A volume that is made from a template; instances with an equal `reuse_key` share one."""

    kind: Literal["volume-template"] = "volume-template"
    name: str = Field(min_length=1)
    reuse_key: str | None = None


MountSource = Annotated[
    ImageSource | CosSource | CfsSource | AgentBucketSource | VolumeSource | VolumeTemplateSource,
    Field(discriminator="kind"),
]


class StorageMount(Value):
    """Storage that every instance of the tool finds at `mount_path`."""

    name: str = Field(min_length=1)
    mount_path: MountPath
    source: MountSource
    readonly: bool = False


class MountOption(Value):
    """A change to one of the tool's mounts, for one instance: `readonly` can only be tightened."""

    name: str = Field(min_length=1)
    mount_path: MountPath | None = None
    subpath: str | None = None
    readonly: bool | None = None
