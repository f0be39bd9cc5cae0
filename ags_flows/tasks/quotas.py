"""The task that looks at quotas."""

from __future__ import annotations

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.models import QuotaOverview
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task


@sandbox_task("quotas", "")
def get_quotas(config: AGSConfig | str | None = None) -> QuotaOverview:
    """Return how many tools and instances, and how much CPU and memory, the account has and may have.

    Example:
        ```python
        quotas = get_quotas()
        if quotas.instances and quotas.instances.free < 5: ...
        ```
    """
    overview = resolve_config(config).control_plane().quotas()
    run_logger().info("In use: %s", overview)
    return overview
