"""Compute what sandboxes used from AGS's records: pure functions over instances, tools and time.

AGS keeps no history of states. A record has the creation time, the time of the last change, and the current status.
So an instance that has ended counts until its last change, and a paused instance counts until it was paused; earlier
pauses count as use. AGS lists ended instances only for a limited time: make reports for days, not for years.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ags_flows.models import Instance, Prices, Tool, Usage
from ags_flows.models.usage import Grouping
from ags_flows.ownership import DEPLOYMENT, FLOW, NEVER_RAN

GROUPINGS: tuple[Grouping, ...] = ("tool", "flow", "deployment")
NOBODY = {"tool": "(unknown)", "flow": "(not a flow of ags_flows)", "deployment": "(no deployment)"}
_COUNTS_UNTIL_ITS_LAST_CHANGE = NEVER_RAN | {"PAUSED", "STOPPED"}


@dataclass
class Ledger:
    """Sums of what instances used in a period. Keeps one sum per group, not the instances.

    Attributes:
        since: Start of the period, timezone-aware.
        until: End of the period, timezone-aware.
        tools: Tools by id. They provide the size of instances whose records have none.
    """

    since: datetime
    until: datetime
    tools: Mapping[str, Tool]
    total: _Sum = field(default_factory=lambda: _Sum())
    _sums: dict[tuple[Grouping, str], _Sum] = field(default_factory=dict)

    def add(self, instances: Iterable[Instance]) -> None:
        """Add instances to the sums. An instance must be added only once."""
        for instance in instances:
            seconds = seconds_of(instance, self.since, self.until)
            if seconds <= 0:
                continue
            size = _size(instance, self.tools.get(instance.tool_id))
            self.total.add(seconds, size)
            for by in GROUPINGS:
                self._sums.setdefault((by, _group(instance, by)), _Sum()).add(seconds, size)

    def groups(self, by: Grouping) -> set[str]:
        """Return the ids or names of all groups of one grouping."""
        return {name for grouping, name in self._sums if grouping == by}

    def usages(self, names: Mapping[str, str], prices: Prices) -> list[Usage]:
        """Return what each group used, largest first within a grouping.

        Args:
            names: Names of flows and deployments by id.
            prices: Prices per hour. If there are none, costs are None.
        """
        usages = [one.usage(by, names.get(name, name), prices) for (by, name), one in self._sums.items()]
        return sorted(usages, key=lambda usage: (GROUPINGS.index(usage.by), -usage.seconds, usage.name))


def seconds_of(instance: Instance, since: datetime, until: datetime) -> float:
    """Return for how many seconds of a period an instance was in use."""
    if instance.created_at is None:
        return 0.0
    ended = until
    if instance.status in _COUNTS_UNTIL_ITS_LAST_CHANGE and instance.updated_at is not None:
        ended = instance.updated_at
    return max(0.0, (min(ended, until) - max(instance.created_at, since)).total_seconds())


@dataclass
class _Sum:
    sandboxes: int = 0
    seconds: float = 0.0
    cpu_hours: float = 0.0
    memory_gib_hours: float = 0.0
    unsized: int = 0

    def add(self, seconds: float, size: tuple[float, float] | None) -> None:
        self.sandboxes += 1
        self.seconds += seconds
        if size is None:
            self.unsized += 1
            return
        self.cpu_hours += size[0] * seconds / 3600
        self.memory_gib_hours += size[1] * seconds / 3600

    def usage(self, by: Grouping | None, name: str, prices: Prices) -> Usage:
        cost = (
            self.cpu_hours * prices.cpu_hour
            + self.memory_gib_hours * prices.memory_gib_hour
            + self.seconds / 3600 * prices.sandbox_hour
        )
        return Usage(
            name=name,
            by=by or "total",
            sandboxes=self.sandboxes,
            seconds=round(self.seconds, 3),
            cpu_hours=round(self.cpu_hours, 9),
            memory_gib_hours=round(self.memory_gib_hours, 9),
            unsized=self.unsized,
            cost=round(cost, 9) if prices.known else None,
        )


def _size(instance: Instance, tool: Tool | None) -> tuple[float, float] | None:
    cpu = instance.cpu_cores or (tool.cpu_cores if tool else None)
    memory = instance.memory_gib or (tool.memory_gib if tool else None)
    return None if cpu is None or memory is None else (cpu, memory)


def _group(instance: Instance, by: Grouping) -> str:
    if by == "tool":
        name = instance.tool_name or instance.tool_id
    else:
        name = instance.metadata.get(FLOW if by == "flow" else DEPLOYMENT, "")
    return name or NOBODY[by]
