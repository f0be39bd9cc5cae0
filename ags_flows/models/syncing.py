"""Results of synchronizing tools with a list of images."""

from __future__ import annotations

from typing import Literal

from ags_flows.models.value import Value

Drift = Literal["in step", "missing", "differs", "replace", "surplus"]


class SyncedTool(Value):
    """One tool of a list.

    Attributes:
        name: Name of the tool.
        image: Image of the tool.
        id: Id of the tool; empty if it does not exist.
        drift: State of the tool before the change. `surplus`: its image is no longer in the list.
        fields: Names of the fields that differed.
        outcome: What was done: `created`, `updated`, `replaced`, `deleted`, `found`; empty if nothing was done.
        problem: Why the change failed.
    """

    name: str
    image: str
    id: str = ""
    drift: Drift
    fields: tuple[str, ...] = ()
    outcome: str = ""
    problem: str = ""


class SyncReport(Value):
    """The drift of all tools of a group, and what was done."""

    group: str
    dry_run: bool
    tools: tuple[SyncedTool, ...]
    seconds: float = 0.0

    @property
    def problems(self) -> tuple[SyncedTool, ...]:
        """Tools that could not be synchronized."""
        return tuple(tool for tool in self.tools if tool.problem)
