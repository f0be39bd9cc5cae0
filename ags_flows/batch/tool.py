"""The tool of a batch."""

from __future__ import annotations

from ags_flows import tasks
from ags_flows.blocks import AGSConfig
from ags_flows.errors import AGSFlowsError
from ags_flows.models import Tool, ToolSpec
from ags_flows.run.task_options import as_step
from ags_flows.session import make_tool
from ags_flows.tasks.tools import tool_id


class BatchTool:
    """The tool of a batch, created if a spec was given."""

    def __init__(self, config: AGSConfig, tool: ToolSpec | Tool | str, delete: bool | None) -> None:
        self._config = config
        self._tool = tool
        self._delete = isinstance(tool, ToolSpec) if delete is None else delete
        self._made: Tool | None = None

    def make(self) -> str:
        """Return the id of the tool, once it is ACTIVE."""
        tool = self._tool
        if isinstance(tool, ToolSpec):
            ready = make_tool(tool, self._config, for_run=self._delete, steps=[], on_created=self._keep)
        else:
            known = self._found(tool)
            ready = known if known and known.ready else as_step(tasks.wait_tool_active)(tool, config=self._config)
        self._keep(ready)
        return ready.id

    def _keep(self, tool: Tool) -> None:
        self._made = tool

    def _found(self, tool: Tool | str) -> Tool | None:
        try:
            return self._config.control_plane().get_tool(tool_id(tool))
        except AGSFlowsError:
            # The step that waits raises it, and is retried if that helps.
            return None

    def delete(self, quietly: bool) -> None:
        """Delete it, if this batch created it or the caller requires it."""
        if self._delete and self._made is not None:
            # A run that is being cancelled gets no new task runs.
            end = tasks.cleanup.fn if quietly else as_step(tasks.cleanup)
            end(None, self._made, config=self._config)
