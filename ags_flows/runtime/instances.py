"""Instances, by plain arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import ConfigurationError
from ags_flows.lifecycle.open_sandbox import Launch, open_sandbox
from ags_flows.models import CustomConfiguration
from ags_flows.models.durations import check_duration
from ags_flows.run.checked import checked
from ags_flows.run.holder import identify, owner
from ags_flows.runtime.account import Account
from ags_flows.runtime.plain import OF_TOOL, check_custom, if_given


class Instances(Account):
    """The part of `AGSRuntime` that is about instances."""

    @checked(timeout=if_given(check_duration), custom_config=check_custom, **OF_TOOL)
    def start_instance(
        self,
        tool_id: str | None = None,
        tool_name: str | None = None,
        timeout: str | int | None = None,
        custom_config: Mapping[str, Any] | CustomConfiguration | None = None,
    ) -> str:
        """Start an instance, wait until it is RUNNING, and return its id. A lost response does not start a second one.

        An instance that does not become RUNNING is stopped before the error is raised.

        Args:
            tool_id: The tool, by default the configuration's `tool_id`.
            tool_name: The tool, by its name.
            timeout: `30s` to `24h`, or seconds; by default the configuration's. The instance ends then.
            custom_config: What it has different from its tool: a dict with names of `create_tool` (`image`, `command`,
                `command_args`, `env_vars`, `ports`, `cpu`, `memory`, `probe_path`, ...), or a `CustomConfiguration`.

        Raises:
            ConfigurationError: An argument breaks a rule; nothing was sent.
            NotFoundError: There is no such tool.
            InstanceFailedError: It failed to start.
            WaitTimeoutError: It was not running within `startup_timeout` of the configuration.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            instance_id = runtime.start_instance(tool_name="code-interpreter-v1", timeout="5m")
            runtime.stop_instance(instance_id)
            ```
        """
        if tool_id and tool_name:
            raise ConfigurationError("start_instance: give tool_id or tool_name, not both.")
        reference = tool_id or tool_name or self.config.tool_id
        if not reference:
            raise ConfigurationError("No tool is given.", hint="Give tool_id or tool_name, or AGSConfig(tool_id=...).")
        return self._start(reference, timeout or self.config.timeout, custom_config)

    @checked(tool_id=OF_TOOL["tool_id"])
    def list_instances(
        self,
        instance_ids: Sequence[str] | None = None,
        tool_id: str | None = None,
        status: str | None = None,
        limit: int | None = 20,
        tool_name: str | None = None,
    ) -> Any:
        """Return instances as the SDK's `DescribeSandboxInstanceListResponse`.

        Args:
            instance_ids: These alone.
            tool_id: Of this tool.
            status: In this state, such as `RUNNING`.
            limit: How many at most, any number; None for all.
            tool_name: Of the tool of this name.

        Returns:
            `.InstanceSet`, a list of `SandboxInstance` (`.InstanceId`, `.Status`, ...), and `.TotalCount` of all that
            match. Stopped ones stay listed for a while.

        Example:
            ```python
            from ags_flows import AGSRuntime

            running = AGSRuntime().list_instances(status="RUNNING", limit=None)
            print(running.TotalCount, [instance.InstanceId for instance in running.InstanceSet])
            ```
        """
        from ags_flows.cloud.described import describe_instances

        return persistently(
            lambda: describe_instances(
                self.control, ids=instance_ids, tool_id=tool_id, tool_name=tool_name, status=status, limit=limit
            )
        )

    @checked()
    def stop_instance(self, instance_id: str) -> None:
        """Stop an instance permanently. One that has ended already is a success.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            runtime.stop_instance(runtime.start_instance(tool_name="base"))
            ```
        """
        persistently(lambda: self.control.stop_instance(instance_id))
        close_plane(self.connection, instance_id)

    @checked()
    def acquire_token(self, instance_id: str) -> str:
        """Return an access token for an instance's ports, to be sent as the header `X-Access-Token`.

        It is a secret, and it expires: acquire it again for long work.

        Raises:
            NotFoundError: There is no such instance.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            instance_id = runtime.start_instance(tool_name="base")
            headers = {"X-Access-Token": runtime.acquire_token(instance_id)}
            runtime.stop_instance(instance_id)
            ```
        """
        return persistently(lambda: self.control.acquire_token(instance_id)).token.get_secret_value()

    @checked()
    def get_instance_url(self, instance_id: str, port: int | None = None) -> str:
        """Return the URL of a port of an instance, by default the configuration's `port`. It holds no token.

        In the cloud it is `https://{port}-{instance}.{domain}`; an emulator has a path for it.

        Example:
            ```python
            from ags_flows import AGSRuntime

            runtime = AGSRuntime()
            instance_id = runtime.start_instance(tool_name="base")
            print(runtime.get_instance_url(instance_id, 8000))
            runtime.stop_instance(instance_id)
            ```
        """
        return self.connection.instance_url(instance_id, port or self.config.port)

    def _start(self, tool: str, timeout: str | int, custom: Any = None) -> str:
        control = self.control
        does = {"tool": tool, "custom": custom.model_dump(mode="json") if custom else None}
        # One step for all attempts of this call, and so one ClientToken.
        launch = Launch(
            step=identify("AGSRuntime.start_instance", does, ordered=True),
            owner=owner(),
            arguments={"tool": tool, "custom": custom},
            timeout=str(timeout),
            startup_timeout=self.config.startup_timeout,
        )
        return persistently(lambda: open_sandbox(control, self.connection, launch)).instance.id
