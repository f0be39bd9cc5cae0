"""What sandboxes used: how long, how much of CPU and memory, and what that costs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from ags_flows.models.value import Value

Grouping = Literal["tool", "flow", "deployment"]


class Prices(Value):
    """What an hour costs. AGS tells no prices: they are those of your contract."""

    cpu_hour: float = Field(default=0.0, ge=0, description="For one core in use for an hour.")
    memory_gib_hour: float = Field(default=0.0, ge=0, description="For one GiB of memory in use for an hour.")
    sandbox_hour: float = Field(default=0.0, ge=0, description="For a sandbox of any size for an hour.")
    currency: str = Field(default="CNY", description="Only shown.")

    @property
    def known(self) -> bool:
        """Whether there is any price."""
        return bool(self.cpu_hour or self.memory_gib_hour or self.sandbox_hour)


class Usage(Value):
    """What a group of sandboxes used. `unsized` are those whose CPU and memory AGS does not tell any more."""

    name: str
    by: Grouping | Literal["total"]
    sandboxes: int = 0
    seconds: float = 0.0
    cpu_hours: float = 0.0
    memory_gib_hours: float = 0.0
    unsized: int = 0
    cost: float | None = None


class UsageReport(Value):
    """What all sandboxes used from `since` to `until`, and what each group did. Times are aware."""

    since: datetime
    until: datetime
    total: Usage
    usages: tuple[Usage, ...] = ()
    currency: str = ""
    csv: str | None = None
