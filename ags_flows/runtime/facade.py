"""`AGSRuntime`: everything in one object."""

from __future__ import annotations

from ags_flows.runtime.sandboxes import Sandboxes
from ags_flows.runtime.tools import Tools


class AGSRuntime(Tools, Sandboxes):
    """Tools, instances and sandboxes of AGS by plain calls, without Prefect running.

    It uses the same code as the tasks: complete lists, retries that create nothing twice, transfers that keep bytes,
    commands that survive a lost connection. What a call starts belongs to the caller: stop it, or let it end with its
    timeout. In a flow, prefer `sandbox_session`, which stops everything that it started.

    Args:
        config: An `AGSConfig`, or the name of a saved block. Default: the environment.
        **fields: Fields of `AGSConfig`, such as `region`, `secret_id` or `mount_name`. They override
            `config` and the environment.

    Raises:
        ConfigurationError: There is no field of this name, or a value breaks the rule of its field.

    Example:
        ```python
        from ags_flows import AGSRuntime

        runtime = AGSRuntime(timeout="10m", memory="2Gi")
        tool_id = runtime.create_tool("docs-facade", "python:3.11")
        instance_id = runtime.start_instance(tool_id, timeout="5m")
        print(runtime.get_instance_url(instance_id, 8000))
        runtime.stop_instance(instance_id)
        runtime.delete_tool(tool_id)
        ```
    """
