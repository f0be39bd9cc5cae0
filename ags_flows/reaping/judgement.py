"""What may be stopped, and why: pure functions over what AGS and Prefect say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ags_flows.models import Instance, ReapRules, Rule, Snapshot, Tool
from ags_flows.ownership import KEPT, LIVE, MANAGED_BY, SYNCED_TAG, is_orphan, is_ours
from ags_flows.reaping.owners import Owned

UNSTOPPED = frozenset({"STOP_FAILED", "STOPPING_FAILED"})
BROKEN = frozenset({"PAUSE_FAILED", "RESUME_FAILED"})
IN_QUESTION = LIVE | UNSTOPPED | BROKEN
"""States of an instance that may still cost something."""


@dataclass(frozen=True)
class Verdict:
    """Stop it under a rule, or spare it (`rule` is None), and why."""

    rule: Rule | None
    reason: str


def judge_instance(instance: Instance, owned: Owned, rules: ReapRules, now: datetime) -> Verdict:
    """Judge an instance that is ours.

    Args:
        instance: As AGS shows it.
        owned: What Prefect says of its flow run.
        rules: Which rules hold.
        now: The present. Aware.
    """
    metadata = instance.metadata
    if not is_ours(metadata):
        return Verdict(None, "not started by a flow of ags_flows")
    if protection := protected(metadata, rules):
        return Verdict(None, protection)
    since = _hours(instance.updated_at or instance.created_at, now)
    if instance.status in UNSTOPPED:
        if rules.broken and since is not None and since * 60 >= rules.grace_minutes:
            return Verdict("broken", f"it is {instance.status}: asked to stop before, and did not")
        return Verdict(None, f"{instance.status} for less than the grace time, or the rule is off")
    if instance.status == "PAUSED" and (owned.waits or metadata.get(KEPT) == "pause"):
        return _judge_paused(metadata, owned, since, rules)
    if metadata.get(KEPT) and instance.status != "PAUSED":
        return Verdict(None, "kept for a look inside after a failure; its lease ends it")
    ended = instance.created_at if owned.standing == "unknown" else owned.ended_at
    grace = timedelta(minutes=rules.grace_minutes)
    if not is_orphan(metadata, owned.standing, ended, now, grace):
        return Verdict(None, _why_not_orphan(owned))
    broken = instance.status in BROKEN
    if not (rules.broken if broken else rules.orphans):
        return Verdict(None, "without an owner, but the rule is off")
    what = _end_of(owned)
    return Verdict("broken" if broken else "orphan", f"{what}; it is {instance.status}" if broken else what)


def judge_tool(tool: Tool, last_used: datetime | None, owned: Owned | None, rules: ReapRules, now: datetime) -> Verdict:
    """Judge a tool: by its flow run, when it was made for one alone; or by when an instance of it was last started.

    Args:
        tool: As AGS shows it; nothing uses it.
        last_used: As far as AGS still lists instances.
        owned: What Prefect says of the flow run that it was made for.
        rules: Which rules hold.
        now: The present. Aware.
    """
    if tool.tags.get("managed-by") != MANAGED_BY:
        return Verdict(None, "not ours")
    if protection := protected(tool.tags, rules):
        return Verdict(None, protection)
    if owned is not None and rules.orphans:
        ended = tool.created_at if owned.standing == "unknown" else owned.ended_at
        if is_orphan(tool.tags, owned.standing, ended, now, timedelta(minutes=rules.grace_minutes)):
            return Verdict("orphan", _end_of(owned))
    if rules.tools_unused_days is None:
        return Verdict(None, "used lately, or the rule is off")
    if SYNCED_TAG in tool.tags:
        return Verdict(None, "kept by sync_tools")
    moments = [moment for moment in (last_used, tool.updated_at, tool.created_at) if moment is not None]
    idle = _hours(max(moments), now) if moments else None
    if idle is None or idle < rules.tools_unused_days * 24:
        return Verdict(None, "used lately")
    return Verdict("unused tool", f"no instance of it for {idle / 24:.1f} days")


def judge_snapshot(snapshot: Snapshot, rules: ReapRules, now: datetime) -> Verdict:
    """Judge a snapshot by its age."""
    if rules.snapshots_days is None or snapshot.tags.get("managed-by") != MANAGED_BY:
        return Verdict(None, "not ours, or the rule is off")
    if protection := protected(snapshot.tags, rules):
        return Verdict(None, protection)
    age = _hours(snapshot.created_at, now)
    if age is None or age < rules.snapshots_days * 24:
        return Verdict(None, "within its retention")
    return Verdict("old snapshot", f"{age / 24:.1f} days old")


def protected(labels: Mapping[str, str], rules: ReapRules) -> str:
    """Return by what something is protected, empty when it is not."""
    for name, value in rules.protect.items():
        if name in labels and value in ("*", labels[name]):
            return f"protected by {name}={labels[name]}"
    return ""


def _judge_paused(metadata: Mapping[str, str], owned: Owned, since: float | None, rules: ReapRules) -> Verdict:
    why = "its flow run waits for an answer" if owned.waits else "kept paused for a look inside after a failure"
    if owned.standing == "foreign":
        return Verdict(None, _why_not_orphan(owned))
    if rules.paused_hours is None or since is None or since < rules.paused_hours:
        return Verdict(None, why)
    return Verdict("paused too long", f"paused for {since:.1f} hours: {why}")


def _end_of(owned: Owned) -> str:
    if owned.standing == "unknown":
        return "its flow run was deleted"
    since = f" since {owned.ended_at:%Y-%m-%d %H:%M} UTC" if owned.ended_at is not None else ""
    return f"its flow run is {owned.state}{since}"


def _why_not_orphan(owned: Owned) -> str:
    if owned.standing == "active":
        return f"its flow run is {owned.state or 'not over'}"
    if owned.standing == "foreign":
        return "its flow run is unknown here: it may be another Prefect server's"
    return "within the grace time"


def _hours(moment: datetime | None, now: datetime) -> float | None:
    return (now - moment).total_seconds() / 3600 if moment is not None else None
