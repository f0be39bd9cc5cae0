"""Tools, by plain arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ags_flows.cloud.retry import persistently
from ags_flows.errors import ConfigurationError, ConflictError, NotFoundError
from ags_flows.lifecycle.create_once import create_tool_once
from ags_flows.lifecycle.ensure_tool import delete_drained, users_of
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import ImageRegistryType, Network, Probe, Resources, ToolSpec
from ags_flows.models.rules import field_of
from ags_flows.ownership import LIVE
from ags_flows.run.checked import checked
from ags_flows.run.holder import identify
from ags_flows.runtime.account import Account
from ags_flows.runtime.plain import (
    OF_TOOL,
    check_env_vars,
    check_mounts,
    check_ports,
    check_tags,
    check_wanted_tags,
    if_given,
)
from ags_flows.tasks.tools import resolve_spec

NetworkMode = Literal["PUBLIC", "VPC", "SANDBOX"]
Scheme = Literal["HTTP", "HTTPS"]

_NAMED = {"name": "x"}


class Tools(Account):
    """The part of `AGSRuntime` that is about tools."""

    @checked(
        tool_name=field_of(ToolSpec, "name"),
        image=field_of(ToolSpec, "image", _NAMED),
        command=field_of(ToolSpec, "command", _NAMED),
        command_args=field_of(ToolSpec, "args", _NAMED),
        network_mode=field_of(Network, "mode"),
        tool_description=field_of(ToolSpec, "description", _NAMED),
        tool_default_timeout=field_of(ToolSpec, "default_timeout", _NAMED),
        role_arn=if_given(field_of(ToolSpec, "role_arn", _NAMED)),
        image_registry_type=field_of(ToolSpec, "image_registry_type", _NAMED),
        ports=check_ports,
        env_vars=check_env_vars,
        cpu=field_of(Resources, "cpu"),
        memory=field_of(Resources, "memory"),
        tags=check_tags,
        storage_mounts=check_mounts,
        **{f"probe_{name}": field_of(Probe, name) for name in Probe.model_fields},
    )
    def create_tool(
        self,
        tool_name: str,
        image: str,
        command: Sequence[str] | None = None,
        command_args: Sequence[str] | None = None,
        network_mode: NetworkMode = "PUBLIC",
        tool_description: str = "",
        tool_default_timeout: str = "5m",
        role_arn: str | None = "",
        image_registry_type: ImageRegistryType = "enterprise",
        ports: Sequence[Mapping[str, Any]] | None = None,
        env_vars: Sequence[Mapping[str, str]] | None = None,
        cpu: str = "1",
        memory: str = "2Gi",
        probe_path: str = "/",
        probe_port: int = 80,
        probe_scheme: Scheme = "HTTP",
        probe_ready_timeout_ms: int = 30000,
        probe_timeout_ms: int = 1000,
        probe_period_ms: int = 100,
        probe_success_threshold: int = 1,
        probe_failure_threshold: int = 100,
        tags: Sequence[Mapping[str, str]] | None = None,
        storage_mounts: Sequence[Mapping[str, Any]] | None = None,
        wait_for_active: bool = True,
    ) -> str:
        """Create a tool of type `custom` and return its id. A lost response does not create a second one.

        Args:
            tool_name: 1 to 50 letters, digits, `_` or `-`.
            image: Such as `registry.example.com/team/name:tag`; AGS ignores its CMD and ENTRYPOINT.
            command: What runs in the sandbox, such as `["/bin/bash", "-c"]`.
            command_args: Its arguments.
            network_mode: `PUBLIC`, or `SANDBOX` for none.
            tool_description: At most 200 characters.
            tool_default_timeout: Of instances that name none: `30s` to `24h`.
            role_arn: CAM role, by default the configuration's; for private registries and mounts.
            image_registry_type: `enterprise`, `personal`, `custom` or `system`.
            ports: `[{"name": "web", "port": 8000, "protocol": "TCP"}]`.
            env_vars: `[{"name": "MODE", "value": "fast"}]`.
            cpu: Cores, `"2"` or `"500m"`.
            memory: `"512Mi"` or `"2Gi"`.
            probe_path: Path of the HTTP probe that gates an instance's start. AGS asks it if there is a command.
            probe_port: Its port.
            probe_scheme: `HTTP` or `HTTPS`.
            probe_ready_timeout_ms: Milliseconds until it must have passed.
            probe_timeout_ms: Milliseconds for one probe.
            probe_period_ms: Milliseconds between two.
            probe_success_threshold: How many must pass in a row.
            probe_failure_threshold: How many may fail in a row.
            tags: `[{"key": "team", "value": "data"}]`.
            storage_mounts: Images as storage: `[{"name", "mount_path", "readonly", "image", "image_registry_type",
                "subpath"}]`. They override the mount of the configuration.
            wait_for_active: Wait until AGS has it ready, for `startup_timeout` of the configuration.

        Returns:
            The id, `sdt-...`.

        Raises:
            ConfigurationError: An argument breaks a rule; it is named, and nothing was sent.
            ConflictError: There is a tool of that name.
            ToolFailedError: AGS could not make it ready; with its reason.
            WaitTimeoutError: It was not ready in time.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            tool_id = runtime.create_tool(
                "docs-create-tool", "python:3.11", env_vars=[{"name": "MODE", "value": "fast"}], memory="512Mi"
            )
            runtime.delete_tool(tool_id)
            ```
        """
        # The rules have converted them.
        converted: dict[str, Any] = {
            "command": command,
            "args": command_args,
            "env": env_vars,
            "ports": ports,
            "mounts": storage_mounts,
            "tags": tags,
        }
        spec = ToolSpec(
            **{name: value for name, value in converted.items() if value is not None},
            name=tool_name,
            image=image,
            image_registry_type=image_registry_type,
            resources=Resources(cpu=cpu, memory=memory),
            probe=Probe(
                path=probe_path,
                port=probe_port,
                scheme=probe_scheme,
                ready_timeout_ms=probe_ready_timeout_ms,
                timeout_ms=probe_timeout_ms,
                period_ms=probe_period_ms,
                success_threshold=probe_success_threshold,
                failure_threshold=probe_failure_threshold,
            ),
            network=Network(mode=network_mode),
            role_arn=role_arn or None,
            description=tool_description,
            default_timeout=tool_default_timeout,
        )
        resolved = resolve_spec(spec, self.config)
        # One step for all attempts of this call, and so one ClientToken.
        step = identify("AGSRuntime.create_tool", resolved.name)
        control = self.control
        tool, _ = persistently(lambda: create_tool_once(control, resolved, step))
        if wait_for_active:
            wait_tool_active(control, tool.id, timeout=self.config.startup_timeout)
        return tool.id

    @checked(tags=check_wanted_tags, tool_name=OF_TOOL["tool_name"])
    def list_tools(
        self,
        tool_ids: Sequence[str] | None = None,
        limit: int | None = 20,
        offset: int = 0,
        tool_name: str | None = None,
        tags: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        tool_type: str | None = None,
        status: str | None = None,
    ) -> Any:
        """Return tools as the SDK's `DescribeSandboxToolListResponse`.

        Args:
            tool_ids: These alone.
            limit: How many at most, any number; None for all.
            offset: How many to leave out at the beginning.
            tool_name: Of this name.
            tags: With these tags, as a mapping or as `[{"key", "value"}]`.
            tool_type: Of this type, such as `custom`.
            status: `CREATING`, `ACTIVE`, `DELETING` or `FAILED`.

        Returns:
            `.SandboxToolSet`, a list of `SandboxTool` (`.ToolId`, `.ToolName`, `.Status`, ...), and `.TotalCount` of
            all that match.

        Example:
            ```python
            from ags_flows import AGSRuntime

            found = AGSRuntime().list_tools(tags={"team": "data"}, limit=None)
            print(found.TotalCount, [tool.ToolName for tool in found.SandboxToolSet])
            ```
        """
        from ags_flows.cloud.described import describe_tools

        converted: Any = tags
        return persistently(
            lambda: describe_tools(
                self.control,
                ids=tool_ids,
                name=tool_name,
                type=tool_type,
                status=status,
                tags=converted,
                limit=limit,
                offset=offset,
            )
        )

    @checked(**OF_TOOL)
    def get_tool(self, tool_id: str | None = None, tool_name: str | None = None) -> Any:
        """Return one tool, by id or by name, as the SDK's `SandboxTool`.

        Raises:
            ConfigurationError: Neither is given, or both are.
            NotFoundError: There is none.

        Example:
            ```python
            from ags_flows import AGSRuntime

            print(AGSRuntime().get_tool(tool_name="code-interpreter-v1").Status)
            ```
        """
        if bool(tool_id) == bool(tool_name):
            raise ConfigurationError("get_tool: give tool_id or tool_name, one of them.")
        ids = [tool_id] if tool_id else None
        found = self.list_tools(tool_ids=ids, tool_name=tool_name or None, limit=1).SandboxToolSet
        if not found:
            raise NotFoundError(
                f"There is no tool {tool_id or tool_name!r} in region {self.config.region}.",
                hint="Check the name or id, and the region.",
                code="ResourceNotFound.SandboxTool",
            )
        return found[0]

    @checked()
    def delete_tool(self, tool_id: str) -> None:
        """Delete a tool by its id or name. One that is gone already is a success; instances that end are waited for.

        Raises:
            ConflictError: Instances of it still live.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            runtime.delete_tool(runtime.create_tool("docs-delete-tool", "python:3.11"))
            ```
        """
        control = self.control
        try:
            persistently(lambda: control.delete_tool(tool_id))
        except ConflictError:
            known = persistently(lambda: control.get_tool(tool_id))
            if any(user.status in LIVE for user in persistently(lambda: users_of(control, known))):
                raise
            limit = self.config.startup_timeout
            persistently(lambda: delete_drained(control, known, drain=limit, timeout=limit))
