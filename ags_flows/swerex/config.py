"""The configuration of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from ags_flows.blocks import AGSConfig
from ags_flows.models import CustomConfiguration, Image, ImageRegistryType, PortNumber, Timeout, ToolSpec
from ags_flows.models.fields import check_registry_type
from ags_flows.models.value import Value

if TYPE_CHECKING:
    from ags_flows.swerex.deployment import AGSDeployment

SERVER_COMMAND = 'exec swerex-remote --port "$SWEREX_PORT" --auth-token ""'
"""Starts the server of the package `swe-rex`. AGS's gateway checks the token of the sandbox."""


class AGSDeploymentConfig(Value):
    """A SWE-ReX deployment in a sandbox of AGS.

    Attributes:
        type: Discriminator, constant.
        tool: A tool's name or id, or a `ToolSpec` to create and delete again; by default `tool_id` of `ags`.
        image: What this instance runs instead of its tool's image, such as `swebench/sweb.eval.x86_64.x:latest`.
        image_registry_type: Where the image lies; those of SWE-Bench lie in the registry `system`.
        start_server: Whether the server has to be started in the sandbox. By default: unless the tool is of type
            `swebench`, whose sandboxes come with a running server.
        server_command: What starts it; the port is in `$SWEREX_PORT`.
        server_user: The user of the agent's shells: `root` or `user`.
        port: The server's port.
        startup_timeout: Seconds from the start of the instance until the server must respond.
        runtime_timeout: Seconds for one request, beyond the time that a command itself may take.
        lease: How long the sandbox outlives an agent that was killed, `30s` to `24h`; by default that of `ags`.
        metadata: Your own names and values on the instance.
        step: Distinguishes identical deployments in one flow run.
        ags: Where AGS is; by default from the environment.

    Example:
        ```python
        deployment = AGSDeploymentConfig(tool="swebench-v1", startup_timeout=120).get_deployment()
        ```
    """

    type: Literal["ags"] = "ags"
    tool: ToolSpec | str = ""
    image: Image | None = None
    image_registry_type: ImageRegistryType = "system"
    start_server: bool | None = None
    server_command: str = Field(default=SERVER_COMMAND, pattern=r"\S")
    server_user: Literal["root", "user"] = "root"
    port: PortNumber = 8000
    startup_timeout: float = Field(default=180.0, gt=0, allow_inf_nan=False)
    runtime_timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    lease: Timeout | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    step: str = ""
    ags: AGSConfig | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _registry_fits(self) -> Self:
        check_registry_type(self.image, self.image_registry_type)
        return self

    def custom(self) -> CustomConfiguration | None:
        """Return what the instance has different from its tool."""
        if self.image is None:
            return None
        return CustomConfiguration(image=self.image, image_registry_type=self.image_registry_type)

    def get_deployment(self) -> AGSDeployment:
        """Return a deployment that is not started yet."""
        from ags_flows.swerex.deployment import AGSDeployment

        return AGSDeployment.from_config(self)
