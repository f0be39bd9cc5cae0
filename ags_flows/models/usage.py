"""Usage of sandboxes: durations, CPU, memory, and costs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from ags_flows.models.fields import Name
from ags_flows.models.value import Given, Value

Grouping = Literal["tool", "flow", "deployment"]


class Prices(Given):
    """Prices per hour, from your contract. AGS does not report prices."""

    cpu_hour: float = Field(default=0.0, ge=0, description="Price of one CPU core for one hour.")
    memory_gib_hour: float = Field(default=0.0, ge=0, description="Price of one GiB of memory for one hour.")
    sandbox_hour: float = Field(default=0.0, ge=0, description="Price of one sandbox of any size for one hour.")
    currency: Name = Field(default="CNY", description="Currency, for display only.")

    @property
    def known(self) -> bool:
        """Whether any price is set."""
        return bool(self.cpu_hour or self.memory_gib_hour or self.sandbox_hour)


class Usage(Value):
    """Usage of a group of sandboxes. `unsized` counts sandboxes whose CPU and memory AGS no longer reports."""

    name: str
    by: Grouping | Literal["total"]
    sandboxes: int = 0
    seconds: float = 0.0
    cpu_hours: float = 0.0
    memory_gib_hours: float = 0.0
    unsized: int = 0
    cost: float | None = None


class UsageReport(Value):
    """Usage of all sandboxes from `since` to `until`, in total and for each group. Times are timezone-aware."""

    since: datetime
    until: datetime
    total: Usage
    usages: tuple[Usage, ...] = ()
    currency: str = ""
    csv: str | None = None
