"""The rules of the reaper, and its report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ags_flows.models.fields import Tags
from ags_flows.models.value import Given, Value

PROTECTED = {"ags-flows-protected": "true"}
"""Metadata of an instance, or tag of a tool or a snapshot, that the reaper never stops or deletes."""


class ReapRules(Given):
    """The rules that the reaper applies. Each rule can be switched off."""

    orphans: bool = Field(
        default=True,
        description="Stop instances whose flow run has ended or was deleted from the Prefect server, and delete tools "
        "that were created for one such run.",
    )
    grace_minutes: float = Field(
        default=10.0, ge=0, description="Minutes to wait after the end of the flow run, so that a retry can take over."
    )
    broken: bool = Field(
        default=True,
        description="Stop instances whose earlier stop failed, and orphans whose pause or resume failed.",
    )
    paused_hours: float | None = Field(
        default=72.0,
        ge=0,
        description="Stop instances that have been paused for more hours than this: those of runs that wait for "
        "input, and those of failed runs, kept for inspection. Empty: never.",
    )
    tools_unused_days: float | None = Field(
        default=None,
        ge=0,
        description="Delete tools of ags_flows that no listed instance has used for more days than this. Empty: never.",
    )
    snapshots_days: float | None = Field(
        default=None, ge=0, description="Delete snapshots of ags_flows that are older than this. Empty: never."
    )
    sole_server: bool = Field(
        default=False,
        description="Treat runs that this Prefect server does not know as ended. Use it only if no other Prefect "
        "server or workspace uses this account and region.",
    )
    protect: Tags = Field(
        default_factory=lambda: dict(PROTECTED),
        description="Resources with one of these metadata entries or tags are kept. The value * matches any value.",
    )
    at_most: int = Field(
        default=200, ge=0, description="Maximum number of resources to stop or delete in one run of the reaper."
    )


Rule = Literal["orphan", "broken", "paused too long", "unused tool", "old snapshot"]


class Reaped(Value):
    """One resource that the reaper judged.

    Attributes:
        kind: The kind of resource.
        id: Id of the resource.
        rule: The rule that applied; None if the resource was kept.
        reason: Why it was stopped or kept, for people.
        done: Whether it was stopped or deleted. False in a dry run, and if it failed.
        problem: Why it failed.
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
    """What the reaper stopped, what it kept, and why.

    Attributes:
        dry_run: Whether nothing was stopped.
        stopped: Resources under a rule; in a dry run, those that would be stopped.
        spared: The first resources of ags_flows that were kept.
        spared_count: Reason to keep a resource, to the number of kept resources.
        seen: Number of listed live instances, including those of other programs.
        left: Number of resources under a rule that were not stopped because `at_most` was reached.
        incomplete: The error that ended the run early, empty otherwise.
        seconds: Duration of the run.
    """

    dry_run: bool
    stopped: tuple[Reaped, ...] = ()
    spared: tuple[Reaped, ...] = ()
    spared_count: dict[str, int] = Field(default_factory=dict)
    seen: int = 0
    left: int = 0
    incomplete: str = ""
    seconds: float = 0.0
