"""Decide what may be stopped, and why: pure functions over what AGS and the Prefect server report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ags_flows.models import Instance, ReapRules, Rule, Snapshot, Tool
from ags_flows.ownership import (
    CHANGE_FAILED,
    KEPT,
    LIVE,
    MANAGED_BY,
    MANAGED_BY_KEY,
    RESUMABLE,
    STOP_FAILED,
    SYNCED_TAG,
    is_orphan,
    is_ours,
    lease_is_kept,
)
from ags_flows.reaping.owners import Owned

IN_QUESTION = LIVE | STOP_FAILED | CHANGE_FAILED
"""Statuses of an instance that may still cause costs."""

FOREIGN = "its flow run is unknown here: it may belong to another Prefect server"


@dataclass(frozen=True)
class Verdict:
    """The decision about one resource.

    Attributes:
        rule: The rule under which to stop it; None to keep it.
        reason: The reason, for people.
    """

    rule: Rule | None
    reason: str


def judge_instance(instance: Instance, owned: Owned, rules: ReapRules, now: datetime) -> Verdict:
    """Decide whether to stop an instance.

    Args:
        instance: The instance as AGS reports it.
        owned: The combined state of the flow runs that own it.
        rules: The rules to apply.
        now: The current time, timezone-aware.
    """
    metadata = instance.metadata
    if not is_ours(metadata):
        return Verdict(None, "not started by a flow of ags_flows")
    if protection := protected(metadata, rules):
        return Verdict(None, protection)
    since = _hours(instance.updated_at or instance.created_at, now)
    if instance.status in STOP_FAILED:
        if rules.broken and since is not None and since * 60 >= rules.grace_minutes:
            return Verdict("broken", f"it is {instance.status}: an earlier stop request failed")
        return Verdict(None, f"{instance.status} for less than the grace time, or the rule is off")
    if instance.status == "PAUSED" and (owned.waits or metadata.get(KEPT) == "pause"):
        return _judge_paused(instance, owned, since, rules)
    if metadata.get(KEPT) and instance.status != "PAUSED":
        return Verdict(None, "kept for inspection after a failure until its lease expires")
    if not _is_orphan(metadata, owned, instance.created_at, rules, now):
        return Verdict(None, _why_not_orphan(owned, instance.created_at, rules))
    # The timeout of a paused instance does not run, so it does not show whether the owner is alive.
    if instance.status not in RESUMABLE and lease_is_kept(metadata, instance.expires_at, now):
        return Verdict(None, "its lease may still be renewed")
    broken = instance.status in CHANGE_FAILED
    if not (rules.broken if broken else rules.orphans):
        return Verdict(None, "orphaned, but the rule is off")
    what = _end_of(owned)
    return Verdict("broken" if broken else "orphan", f"{what}; it is {instance.status}" if broken else what)


def judge_tool(tool: Tool, last_used: datetime | None, owned: Owned | None, rules: ReapRules, now: datetime) -> Verdict:
    """Decide whether to delete a tool.

    A tool that was created for one flow run is judged by that run; any other tool by the time of its last use.

    Args:
        tool: The tool as AGS reports it. No instance uses it.
        last_used: Start time of its newest instance that AGS still lists, timezone-aware.
        owned: The combined state of the flow runs that it was created for; None for a shared tool.
        rules: The rules to apply.
        now: The current time, timezone-aware.
    """
    if tool.tags.get(MANAGED_BY_KEY) != MANAGED_BY:
        return Verdict(None, "not created by ags_flows")
    if protection := protected(tool.tags, rules):
        return Verdict(None, protection)
    if owned is not None and rules.orphans:
        if _is_orphan(tool.tags, owned, tool.created_at, rules, now):
            return Verdict("orphan", _end_of(owned))
    if rules.tools_unused_days is None:
        return Verdict(None, "used recently, or the rule is off")
    if SYNCED_TAG in tool.tags:
        return Verdict(None, "kept by sync_tools")
    moments = [moment for moment in (last_used, tool.updated_at, tool.created_at) if moment is not None]
    idle = _hours(max(moments), now) if moments else None
    if idle is None or idle < rules.tools_unused_days * 24:
        return Verdict(None, "used recently")
    return Verdict("unused tool", f"no instance of it for {idle / 24:.1f} days")


def judge_snapshot(snapshot: Snapshot, rules: ReapRules, now: datetime) -> Verdict:
    """Decide whether to delete a snapshot, by its age."""
    if rules.snapshots_days is None or snapshot.tags.get(MANAGED_BY_KEY) != MANAGED_BY:
        return Verdict(None, "not created by ags_flows, or the rule is off")
    if protection := protected(snapshot.tags, rules):
        return Verdict(None, protection)
    age = _hours(snapshot.created_at, now)
    if age is None or age < rules.snapshots_days * 24:
        return Verdict(None, "within its retention time")
    return Verdict("old snapshot", f"{age / 24:.1f} days old")


def protected(labels: Mapping[str, str], rules: ReapRules) -> str:
    """Return the reason why labels protect a resource; empty if they do not."""
    for name, value in rules.protect.items():
        if name in labels and value in ("*", labels[name]):
            return f"protected by {name}={labels[name]}"
    return ""


def _judge_paused(instance: Instance, owned: Owned, since: float | None, rules: ReapRules) -> Verdict:
    why = "its flow run waits for input" if owned.waits else "kept paused for inspection after a failure"
    if _may_be_of_another_server(owned, instance.created_at, rules):
        return Verdict(None, _why_not_orphan(owned, instance.created_at, rules))
    if rules.paused_hours is None or since is None or since < rules.paused_hours:
        return Verdict(None, why)
    return Verdict("paused too long", f"paused for {since:.1f} hours: {why}")


def _may_be_of_another_server(owned: Owned, created_at: datetime | None, rules: ReapRules) -> bool:
    if owned.standing == "unknown":
        return not (rules.sole_server or owned.was_deleted(created_at))
    return owned.standing == "foreign"


def _is_orphan(
    labels: Mapping[str, str], owned: Owned, created_at: datetime | None, rules: ReapRules, now: datetime
) -> bool:
    if _may_be_of_another_server(owned, created_at, rules):
        return False
    ended_at = owned.ended_at
    if owned.standing == "unknown":
        ended_at = max((moment for moment in (created_at, ended_at) if moment is not None), default=None)
    return is_orphan(labels, owned.standing, ended_at, now, timedelta(minutes=rules.grace_minutes))


def _end_of(owned: Owned) -> str:
    if owned.standing == "unknown":
        return "its flow run was deleted"
    since = f" since {owned.ended_at:%Y-%m-%d %H:%M} UTC" if owned.ended_at is not None else ""
    return f"its flow run is {owned.state}{since}"


def _why_not_orphan(owned: Owned, created_at: datetime | None, rules: ReapRules) -> str:
    if owned.standing == "active":
        return f"its flow run is {owned.state or 'not over'}"
    if owned.standing == "foreign":
        return FOREIGN
    if owned.standing == "unknown" and not (rules.sole_server or owned.was_deleted(created_at)):
        return "its flow run is unknown here, and no later run of the flow is known: the database may be a copy"
    return "within the grace time"


def _hours(moment: datetime | None, now: datetime) -> float | None:
    return (now - moment).total_seconds() / 3600 if moment is not None else None
