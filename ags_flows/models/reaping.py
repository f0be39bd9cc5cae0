"""What the reaper may stop, and what it did."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ags_flows.models.value import Value

PROTECTED = {"ags-flows-protected": "true"}
"""Metadata of an instance, or a tag of a tool or a snapshot, that no reaper touches."""


class ReapRules(Value):
    """Which rules the reaper follows, each of which can be switched off."""

    orphans: bool = Field(
        default=True,
        description="Stop instances, and delete tools made for one run alone, whose flow run is over, or was deleted "
        "from the Prefect server.",
    )
    grace_minutes: float = Field(
        default=10.0, ge=0, description="How long they are left alone first, for a retry to take over."
    )
    broken: bool = Field(
        default=True,
        description="Stop instances once more that could not be stopped, and orphans that could not pause or resume.",
    )
    paused_hours: float | None = Field(
        default=72.0,
        ge=0,
        description="Stop instances that have been paused for longer: of runs that wait for an answer, and of failed "
        "runs, kept for a look inside. Empty for never.",
    )
    tools_unused_days: float | None = Field(
        default=None,
        ge=0,
        description="Delete tools of ours that no instance which AGS still lists has used for longer. Empty for never.",
    )
    snapshots_days: float | None = Field(
        default=None, ge=0, description="Delete snapshots of ours that are older. Empty for never."
    )
    sole_server: bool = Field(
        default=False,
        description="Runs that this Prefect server knows nothing of are nobody's: only where no other Prefect server "
        "or workspace uses this account and region.",
    )
    protect: dict[str, str] = Field(
        default_factory=lambda: dict(PROTECTED),
        description="Metadata or tags that protect whatever carries one of them; the value * stands for any.",
    )
    at_most: int = Field(
        default=200, ge=0, description="How much may be stopped or deleted in one go; the rest is left to the next."
    )


Rule = Literal["orphan", "broken", "paused too long", "unused tool", "old snapshot"]


class Reaped(Value):
    """One thing that was judged.

    Attributes:
        kind: What it is.
        id: Its id.
        rule: The rule that it fell under, None for what was spared.
        reason: Why it was stopped, or spared, in words.
        done: Whether it was stopped or deleted: not in a dry run, and not where that failed.
        problem: Why that failed.
    """

    kind: Literal["instance", "tool", "snapshot"]
    id: str
    rule: Rule | None = None
    reason: str = ""
    done: bool = False
    problem: str = ""
    tool: str = ""
    flow_run_id: str = ""
    flow_run: str = ""
    state: str = ""
    age_hours: float | None = None


class ReapReport(Value):
    """What a reaper looked at, what it stopped and why, and what it spared and why.

    Attributes:
        stopped: What fell under a rule; in a dry run, what would have been stopped.
        spared: The first of what is ours and was spared.
        spared_count: How many there are of each reason to spare.
        seen: How many live instances of anybody were listed.
        left: How many fell under a rule after `at_most` was reached.
        incomplete: Why not everything could be judged, empty otherwise.
    """

    dry_run: bool
    stopped: tuple[Reaped, ...] = ()
    spared: tuple[Reaped, ...] = ()
    spared_count: dict[str, int] = Field(default_factory=dict)
    seen: int = 0
    left: int = 0
    incomplete: str = ""
    seconds: float = 0.0
