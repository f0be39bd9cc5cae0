"""The block with the endpoint of AGS and the defaults of sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_serializer, model_validator
from typing_extensions import Self

from ags_flows.blocks.credentials import DOCUMENTATION, Secret, TencentCloudCredentials, filled
from ags_flows.blocks.environment import config_from_environment
from ags_flows.blocks.explained import Explained
from ags_flows.cloud.connection import DEFAULT_ENDPOINT, DEFAULT_REGION, Connection, check_domain, domain_of
from ags_flows.models import (
    Cpu,
    Image,
    ImageRegistryType,
    ImageSource,
    Memory,
    MountPath,
    PortNumber,
    Region,
    RoleArn,
    StorageMount,
    Timeout,
)
from ags_flows.models.checks import MOST_SECONDS
from ags_flows.models.durations import parse_duration

if TYPE_CHECKING:
    from ags_flows.cloud.control_plane import ControlPlane


class AGSConfig(Explained, Block):
    """Where AGS is, with which keys, and the defaults of tools and instances.

    An argument overrides the environment, and the environment overrides the default. Secrets are an exception: they
    stay empty and are looked up when they are used, so that saving the block never copies the environment's keys.

    Attributes:
        credentials: The keys; an empty block follows the environment.
        secret_id, secret_key: The keys without a credentials block; they override `credentials`.
        http_endpoint: Control plane: a host, or a URL such as an emulator's `http://127.0.0.1:8600`.
        region: Region of AGS.
        domain: Data plane; follows `region`, or the emulator in `http_endpoint`, when it is not given.
        tool_id: An existing tool, used where none is named.
        image, image_registry_type: Default image for tools that name none.
        timeout: Timeout of an instance, `30s` to `24h`, for instances that no flow keeps alive.
        lease: Timeout of an instance that a flow keeps alive. The flow renews it at a quarter of its life. After a
            crash the instance lives for three quarters of the lease at least, and for the whole lease at most.
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
    _documentation_url = DOCUMENTATION
    _description = "Tencent Cloud Agent Sandbox (AGS): endpoint, region, keys, defaults of sandboxes."

    region: Region = Field(
        default=DEFAULT_REGION,
        title="Region",
        description="Of AGS: ap-guangzhou, ap-shanghai, ap-beijing, ap-chongqing, ap-singapore, ...",
    )
    credentials: TencentCloudCredentials = Field(
        default_factory=TencentCloudCredentials,
        title="Credentials",
        description="Keys, or how to get them. Empty: the environment of the process that executes the flow.",
    )
    tool_id: str = Field(
        default="", title="Tool", description="Id (or name) of an existing tool, used where none is named."
    )
    http_endpoint: str = Field(
        default=DEFAULT_ENDPOINT,
        title="Endpoint",
        description="Control plane: a host, or the URL of an emulator (http://127.0.0.1:8600).",
    )
    domain: str = Field(
        default="",
        title="Domain",
        description="Data plane. Leave empty: it follows the region, or the emulator in the endpoint.",
    )
    skip_ssl_verify: bool = Field(
        default=False, title="Skip TLS verification", description="Do not check certificates."
    )
    timeout: Timeout = Field(
        default="1h",
        title="Instance: timeout",
        description="Of instances that no flow keeps alive: 30s to 24h, such as 5m or 1h30m.",
    )
    lease: Timeout = Field(
        default="15m",
        title="Instance: lease",
        description="How long a sandbox lives after its flow died, 30s to 24h. It is renewed at a quarter of its life: "
        "three quarters must be longer than the time after which a lost run is detected.",
    )
    port: PortNumber = Field(default=8000, title="Instance: port", description="Port of URLs that name none.")
    startup_timeout: float = Field(
        default=180.0,
        gt=0,
        le=MOST_SECONDS,
        title="Wait for start",
        description="Seconds to wait for a tool or an instance.",
    )
    runtime_timeout: float = Field(
        default=60.0,
        gt=0,
        le=MOST_SECONDS,
        title="Request timeout",
        description="Seconds for one request to a sandbox.",
    )
    image: Image = Field(default="python:3.11", title="New tools: image", description="Where a tool names none.")
    image_registry_type: ImageRegistryType = Field(
        default="enterprise",
        title="New tools: registry type",
        description="Where the image lies: enterprise (TCR), personal (CCR), custom or system.",
    )
    cpu: Cpu = Field(default="1", title="New tools: CPU", description="Cores, such as 2, 0.5 or 500m.")
    memory: Memory = Field(default="1Gi", title="New tools: memory", description="Such as 512Mi or 2Gi.")
    role_arn: RoleArn = Field(
        default="",
        title="New tools: role ARN",
        description="CAM role of sandboxes, which private registries and mounts need: "
        "qcs::cam::uin/100000000001:roleName/ags.",
    )
    mount_name: str = Field(
        default="",
        title="Image mount: name",
        description="An image that new tools mount as storage, such as one with envd; empty for none.",
    )
    mount_image: str = Field(
        default="", title="Image mount: image", description="With a tag, such as registry.example.com/team/envd:v1."
    )
    mount_image_registry_type: ImageRegistryType = Field(
        default="enterprise", title="Image mount: registry type", description="Where the mounted image lies."
    )
    mount_path: MountPath = Field(
        default="/nix", title="Image mount: path in the sandbox", description="Where the image is mounted."
    )
    image_subpath: str = Field(
        default="/nix", title="Image mount: path in the image", description="Which directory of the image is mounted."
    )
    mount_readonly: bool = Field(
        default=False, title="Image mount: read-only", description="The sandbox may not write to it."
    )
    secret_id: Secret = Field(
        default=SecretStr(""),
        title="SecretId (without a credentials block)",
        description="Beats the credentials above.",
    )
    secret_key: Secret = Field(
        default=SecretStr(""),
        title="SecretKey (without a credentials block)",
        description="Beats the credentials above.",
    )
    type: Literal["tencentags"] = Field(default="tencentags", description="The kind of sandbox service, constant.")

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

    @field_serializer("domain")
    def _only_a_domain_of_its_own(self, domain: str) -> str:
        # A saved domain that only follows the region would disagree with it as soon as a user changes the region.
        return "" if domain == domain_of(self.http_endpoint, self.region) else domain

    @property
    def place_key(self) -> str:
        """What stands for the configuration in steps: where AGS is. Keys are rotated, defaults have other steps."""
        return f"{self.http_endpoint} {self.region}"

    def connection(self) -> Connection:
        """Return URLs and keys as one value; keys are read from the environment now, if the blocks have none."""
        credentials = self._whose_keys()
        secret_id, secret_key, session_token = credentials.resolve()
        return Connection(
            endpoint=self.http_endpoint,
            region=self.region,
            domain=self.domain,
            secret_id=secret_id,
            secret_key=secret_key,
            session_token=session_token,
            key_source=credentials.key_source(),
            verify_tls=not self.skip_ssl_verify,
            runtime_timeout=self.runtime_timeout,
        )

    def _whose_keys(self) -> TencentCloudCredentials:
        own = {name: key for name in ("secret_id", "secret_key") if (key := filled(getattr(self, name)))}
        if not own:
            return self.credentials
        method = "assume-role" if self.credentials.method == "assume-role" else "keys"
        return self.credentials.model_copy(update={**own, "method": method})

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
