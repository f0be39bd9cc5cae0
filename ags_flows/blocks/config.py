"""The block that says where AGS is and what sandboxes look like by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, ValidationError, model_validator
from typing_extensions import Self

from ags_flows.blocks.credentials import Secret, TencentCloudCredentials, filled
from ags_flows.cloud.connection import DEFAULT_ENDPOINT, DEFAULT_REGION, Connection, check_domain, domain_of
from ags_flows.durations import parse_duration
from ags_flows.errors import ConfigurationError
from ags_flows.models import (
    Cpu,
    Image,
    ImageRegistryType,
    ImageSource,
    Memory,
    MountPath,
    PortNumber,
    StorageMount,
    Timeout,
    explain,
)
from ags_flows.settings import config_from_environment

if TYPE_CHECKING:
    from ags_flows.cloud.control_plane import ControlPlane


class AGSConfig(Block):
    """Where AGS is, with which keys, and the defaults of tools and instances.

    An argument beats the environment, the environment beats the default. Secrets are the exception: they stay
    empty and are looked up when they are used, so that saving the block never copies the environment's keys.

    Attributes:
        credentials: The keys; an empty block follows the environment.
        secret_id, secret_key: The keys without a block of their own; they beat `credentials`.
        http_endpoint: Control plane: a host, or a URL such as an emulator's `http://127.0.0.1:8600`.
        region: Region of AGS.
        domain: Data plane; follows `region`, or the emulator in `http_endpoint`, when it is not given.
        tool_id: An existing tool, used where none is named.
        image, image_registry_type: Default image for tools that name none.
        timeout: Timeout of an instance, `30s` to `24h`, for instances that nobody keeps alive.
        lease: Timeout of an instance that a flow keeps alive; after a crash it lives on for that long.
        startup_timeout: Seconds to wait for a tool or an instance.
        runtime_timeout: Seconds for one request to a sandbox.
        port: Default port of URLs.
        mount_name, mount_image, mount_image_registry_type, mount_path, image_subpath, mount_readonly: An image
            that is mounted into every sandbox as storage: how envd gets into a custom image.

    Example:
        ```python
        from ags_flows import AGSConfig

        AGSConfig(region="ap-shanghai").save("BLOCK_NAME", overwrite=True)  # keys stay in the environment
        config = AGSConfig.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "AGS Config"
    _block_type_slug = "ags-config"
    _documentation_url = HttpUrl("https://cloud.tencent.com/document/product/1814")
    _description = "Tencent Cloud Agent Sandbox (AGS): endpoint, region, keys, defaults of sandboxes."

    type: Literal["tencentags"] = Field(default="tencentags", description="The kind of sandbox service, constant.")
    credentials: TencentCloudCredentials = Field(
        default_factory=TencentCloudCredentials, description="Keys; empty fields follow the environment."
    )
    secret_id: Secret = Field(default=SecretStr(""), title="SecretId", description="Beats the credentials block.")
    secret_key: Secret = Field(default=SecretStr(""), title="SecretKey", description="Beats the credentials block.")
    http_endpoint: str = Field(
        default=DEFAULT_ENDPOINT, title="Endpoint", description="Control plane: a host, or the URL of an emulator."
    )
    skip_ssl_verify: bool = Field(
        default=False, title="Skip TLS verification", description="Do not check certificates."
    )
    region: str = Field(default=DEFAULT_REGION, pattern=r"^[a-z0-9-]+$", description="Region of AGS.")
    domain: str = Field(default="", description="Data plane. Empty: derived from region or endpoint.")
    tool_id: str = Field(default="", title="Tool id", description="An existing tool to use where none is named.")
    image: Image = Field(default="python:3.11", description="Image of tools that name none.")
    image_registry_type: ImageRegistryType = Field(default="enterprise", description="Kind of that image's registry.")
    timeout: Timeout = Field(default="1h", description="Timeout of an instance: 30s to 24h, such as 5m or 1h30m.")
    lease: Timeout = Field(default="10m", description="How long a sandbox outlives a flow that died.")
    port: PortNumber = Field(default=8000, description="Port of URLs that name none.")
    startup_timeout: float = Field(default=180.0, gt=0, description="Seconds to wait for a tool or an instance.")
    runtime_timeout: float = Field(default=60.0, gt=0, description="Seconds for one request to a sandbox.")
    cpu: Cpu = Field(default="1", description="Cores of tools that name none.")
    memory: Memory = Field(default="1Gi", description="Memory of tools that name none.")
    role_arn: str = Field(default="", title="Role ARN", description="CAM role, for private registries and mounts.")
    mount_name: str = Field(default="", description="Name of an image mount; empty for none.")
    mount_image: str = Field(default="", description="Image that is mounted as storage.")
    mount_image_registry_type: ImageRegistryType = Field(
        default="enterprise", description="Kind of the mounted image's registry."
    )
    mount_path: MountPath = Field(default="/nix", description="Where the image is mounted in the sandbox.")
    image_subpath: str = Field(default="/nix", description="Which path of the image is mounted.")
    mount_readonly: bool = Field(default=False, description="Mount it read-only.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the fields, and speak of what is wrong in one sentence a field."""
        try:
            super().__init__(*args, **kwargs)
        except ValidationError as error:
            raise ConfigurationError(explain("AGSConfig", error)) from None

    @model_validator(mode="before")
    @classmethod
    def _environment_beats_defaults(cls, data: Any) -> Any:
        return {**config_from_environment(), **data} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _domain_follows_region(self) -> Self:
        if not self.domain:
            self.domain = domain_of(self.http_endpoint, self.region)
        check_domain(self.domain, self.region)
        if bool(self.mount_name) != bool(self.mount_image):
            raise ValueError("mount_name and mount_image belong together: give both or none")
        return self

    def connection(self) -> Connection:
        """Return addresses and keys as one value; keys are read from the environment now, if the blocks have none."""
        secret_id, secret_key, session_token = TencentCloudCredentials(
            secret_id=filled(self.secret_id) or self.credentials.secret_id,
            secret_key=filled(self.secret_key) or self.credentials.secret_key,
            session_token=self.credentials.session_token,
        ).resolve()
        return Connection(
            endpoint=self.http_endpoint,
            region=self.region,
            domain=self.domain,
            secret_id=secret_id,
            secret_key=secret_key,
            session_token=session_token,
            verify_tls=not self.skip_ssl_verify,
            runtime_timeout=self.runtime_timeout,
        )

    def control_plane(self) -> ControlPlane:
        """Return the client of tools and instances, one per account and region in this process."""
        from ags_flows.cloud.control_plane import ControlPlane

        return ControlPlane.of(self.connection())

    def mounts(self) -> tuple[StorageMount, ...]:
        """Return the mount that the fields `mount_*` describe, if any."""
        if not self.mount_name:
            return ()
        source = ImageSource(
            image=self.mount_image,
            image_registry_type=self.mount_image_registry_type,
            subpath=self.image_subpath,
        )
        return (
            StorageMount(name=self.mount_name, mount_path=self.mount_path, source=source, readonly=self.mount_readonly),
        )

    @property
    def lease_seconds(self) -> int:
        """The lease in seconds."""
        return parse_duration(self.lease, field="lease")
