"""Storage of tools: its source and its mount path."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from ags_flows.models.fields import ImageRegistryType, MountPath, Name, PathInside, check_image_of_mount
from ags_flows.models.value import Given


class ImageSource(Given):
    """A directory of an image as storage, for example to add envd to a custom image."""

    kind: Literal["image"] = Field(default="image", description="Constant.")
    image: Annotated[str, BeforeValidator(check_image_of_mount)] = Field(description="With a tag or a digest.")
    image_registry_type: ImageRegistryType = Field(
        default="enterprise", description="enterprise (TCR), personal (CCR), custom or system."
    )
    subpath: PathInside = Field(default="/", description="The directory of the image.")


class CosSource(Given):
    """A directory of a COS bucket."""

    kind: Literal["cos"] = Field(default="cos", description="Constant.")
    bucket: Name = Field(description="Name of the bucket.")
    path: PathInside = Field(default="/", pattern="^/", description="The directory, from /.")
    endpoint: Name | None = Field(default=None, description="Of COS. None: that of the region.")


class CfsSource(Given):
    """A directory of a CFS file system."""

    kind: Literal["cfs"] = Field(default="cfs", description="Constant.")
    file_system_id: Name = Field(description="Of CFS, such as cfs-abc.")
    path: PathInside = Field(default="/", pattern="^/", description="The directory, from /.")


class AgentBucketSource(Given):
    """A space of an AgentBucket library."""

    kind: Literal["agent-bucket"] = Field(default="agent-bucket", description="Constant.")
    library_id: Name = Field(description="Of the library.")
    space_id: Name = Field(description="Of the space in it.")
    access_domain: Name | None = Field(default=None, description="None: the domain of the library.")


class VolumeSource(Given):
    """A volume of AGS, identified by its id (`vol-...`) or its name."""

    kind: Literal["volume"] = Field(default="volume", description="Constant.")
    volume_id: Name | None = Field(default=None, description="Such as vol-abc; excludes the name.")
    name: Name | None = Field(default=None, description="Of the volume; excludes the id.")

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if bool(self.volume_id) == bool(self.name):
            raise ValueError("a volume needs either volume_id or name, not both")
        return self


class VolumeTemplateSource(Given):
    """A volume that is created from a template. Instances with an equal `reuse_key` share one volume."""

    kind: Literal["volume-template"] = Field(default="volume-template", description="Constant.")
    name: Name = Field(description="Of the template.")
    reuse_key: Name | None = Field(default=None, description="Instances with an equal key share one volume.")


MountSource = Annotated[
    ImageSource | CosSource | CfsSource | AgentBucketSource | VolumeSource | VolumeTemplateSource,
    Field(discriminator="kind"),
]


class StorageMount(Given):
    """Storage that is mounted at `mount_path` in every instance of the tool."""

    name: Name = Field(description="Distinct among the mounts of the tool.")
    mount_path: MountPath = Field(description="Absolute path in the sandbox.")
    source: MountSource = Field(description="Where the storage comes from.")
    readonly: bool = Field(default=False, description="Whether sandboxes may only read it.")


class MountOption(Given):
    """A change to one of the tool's mounts for one instance. `readonly` can only be changed to True."""

    name: Name
    mount_path: MountPath | None = None
    subpath: PathInside | None = None
    readonly: bool | None = None
