"""The base job template of work pools of type `ags`: its variables, and the configuration of one flow run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Optional

from prefect.workers.base import BaseJobConfiguration, BaseVariables
from pydantic import Field, ValidationError

from ags_flows.blocks import AGSConfig
from ags_flows.errors import ConfigurationError
from ags_flows.models import explain
from ags_flows.models.fields import Cpu, Image, Memory, Timeout

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

NEEDED = frozenset({"PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"})
"""Settings of the worker that the flow in the sandbox needs to reach the Prefect server."""

OF_THE_RUN = "PREFECT__"
"""Names of the variables begin with it by which Prefect names the flow run."""


class AGSWorkerVariables(BaseVariables):
    """What a work pool has defaults for, and a deployment or a flow run can change as job variables."""

    config: Optional[AGSConfig] = Field(  # noqa: UP045 - the form of the Prefect UI knows this spelling
        default=None,
        title="Configuration",
        description="An AGSConfig block: endpoint, region, keys. Default: the environment of the worker.",
    )
    image: Optional[Image] = Field(  # noqa: UP045
        default=None,
        title="Image",
        description="An image with Prefect, such as prefecthq/prefect:3-latest. Its tool is made once, and stays.",
    )
    tool: Optional[str] = Field(  # noqa: UP045
        default=None, title="Tool", description="Instead of an image: name or id of an existing tool."
    )
    cpu: Optional[Cpu] = Field(default=None, title="CPU", description="With an image: cores.")  # noqa: UP045
    memory: Optional[Memory] = Field(  # noqa: UP045
        default=None, title="Memory", description="With an image: such as 2Gi."
    )
    network: Literal["PUBLIC", "SANDBOX"] = Field(
        default="PUBLIC", title="Network", description="With an image: PUBLIC, or SANDBOX for no way out."
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        title="Secrets",
        description="Environment variables from Prefect Secret blocks: name of the variable to name of the block.",
    )
    uploads: dict[str, str] = Field(
        default_factory=dict,
        title="Uploads",
        description="Files and directories to copy before the start: path on the worker to path in the sandbox.",
    )
    api_url: Optional[str] = Field(  # noqa: UP045
        default=None,
        title="API URL",
        description="The URL of the Prefect API as sandboxes reach it. Default: that of the worker.",
    )
    lease: Optional[Timeout] = Field(  # noqa: UP045
        default=None,
        title="Lease",
        description="How long a sandbox outlives its worker, 30s to 24h. Default: that of the configuration (15m).",
    )
    timeout: Optional[int] = Field(  # noqa: UP045
        default=None, gt=0, title="Timeout", description="Seconds for the whole flow run. Default: no limit."
    )
    keep_on_failure: bool = Field(
        default=False,
        title="Keep on failure",
        description="Keep the sandbox of a failed run until its lease ends, to look into it.",
    )


class AGSWorkerJobConfiguration(BaseJobConfiguration):
    """What one flow run gets. The fields are those of `AGSWorkerVariables`."""

    config: Optional[AGSConfig] = None  # noqa: UP045
    image: Optional[Image] = None  # noqa: UP045
    tool: Optional[str] = None  # noqa: UP045
    cpu: Optional[Cpu] = None  # noqa: UP045
    memory: Optional[Memory] = None  # noqa: UP045
    network: Literal["PUBLIC", "SANDBOX"] = "PUBLIC"
    secrets: dict[str, str] = Field(default_factory=dict)
    uploads: dict[str, str] = Field(default_factory=dict)
    api_url: Optional[str] = None  # noqa: UP045
    lease: Optional[Timeout] = None  # noqa: UP045
    timeout: Optional[int] = Field(default=None, gt=0)  # noqa: UP045
    keep_on_failure: bool = False

    def __init__(self, **variables: Any) -> None:
        """Take the job variables.

        Raises:
            ConfigurationError: One is invalid.
        """
        try:
            super().__init__(**variables)
        except ValidationError as error:
            raise ConfigurationError(explain("The job configuration", error)) from None

    def prepare_for_flow_run(self, flow_run: FlowRun, *known: Any, **options: Any) -> None:
        """Fill in what is known of the flow run: releases of Prefect differ in what else they pass.

        The environment has what the template names, the ids of the flow run, and how it reaches the Prefect server.
        No other setting and no other variable of the worker gets into the sandbox.
        """
        named = {name: value for name, value in self.env.items() if value is not None}
        super().prepare_for_flow_run(flow_run, *known, **options)
        needed = {
            name: value
            for name, value in self.env.items()
            if value is not None and (name in NEEDED or name.startswith(OF_THE_RUN))
        }
        self.env = {**needed, **named}
        if self.api_url:
            self.env["PREFECT_API_URL"] = self.api_url

    def credentials(self) -> list[str]:
        """Return the values in the environment with which the flow run reaches the Prefect server: they are masked."""
        return [str(self.env[name]) for name in NEEDED - {"PREFECT_API_URL"} if self.env.get(name)]

    def environment(self) -> dict[str, str]:
        """Return the environment of the flow run's process, without its secrets."""
        return {name: str(value) for name, value in self.env.items() if value is not None}
