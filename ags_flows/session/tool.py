"""The tool of a session."""

from __future__ import annotations

from collections.abc import Callable

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.models import Step, Tool, ToolSpec
from ags_flows.run.holder import for_this_run
from ags_flows.run.steps import timed
from ags_flows.run.task_options import as_step


def make_tool(
    spec: ToolSpec,
    config: AGSConfig,
    *,
    for_run: bool,
    steps: list[Step],
    on_created: Callable[[Tool], None],
) -> Tool:
    """Create the tool of a spec, or find it, and wait until it is ACTIVE.

    Args:
        spec: The tool.
        config: Where AGS is.
        for_run: Whether the tool is for this run alone, which deletes it: see `for_this_run`.
        steps: A list that the steps are appended to.
        on_created: Gets the tool before it is ACTIVE, to delete it whatever happens then.
    """
    with timed(steps, f"create tool: {spec.name}"):
        created = as_step(tasks.create_tool)(for_this_run(spec) if for_run else spec, config=config)
    on_created(created)
    with timed(steps, f"wait for tool: {spec.name}"):
        return created if created.ready else as_step(tasks.wait_tool_active)(created, config=config)
