"""Tools that are kept in step with a list of images."""

from __future__ import annotations

from typing import Literal

from ags_flows.models.value import Value

Drift = Literal["in step", "missing", "differs", "replace", "surplus"]


class SyncedTool(Value):
    """One tool of a list.

    Attributes:
        drift: How it was found: `surplus` is a tool whose image is not in the list any more.
        fields: What it had different.
        outcome: What was done: `created`, `updated`, `replaced`, `deleted`, `found`; empty when nothing was.
        problem: Why that failed.
    """

    name: str
    image: str
    id: str = ""
    drift: Drift
    fields: tuple[str, ...] = ()
    outcome: str = ""
    problem: str = ""


class SyncReport(Value):
    """The drift that was found, and what was done about it."""

    group: str
    dry_run: bool
    tools: tuple[SyncedTool, ...]
    seconds: float = 0.0

    @property
    def problems(self) -> tuple[SyncedTool, ...]:
        """Those that could not be brought in step."""
        return tuple(tool for tool in self.tools if tool.problem)
