from datetime import datetime, timedelta, timezone

import pytest

from ags_flows.models import Instance, ReapRules, Snapshot, Tool
from ags_flows.ownership import HOLDER, KEPT, LEASE, MANAGED_BY
from ags_flows.reaping.judgement import SYNCED_TAG, judge_instance, judge_snapshot, judge_tool
from ags_flows.reaping.owners import Owned, together

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
OVER = Owned("terminal", "Failed", ended_at=NOW - timedelta(hours=1))
WAITS = Owned("active", "Suspended", waits=True)
RUNS = Owned("active", "Running")
DELETED = Owned("unknown", newest_run=NOW - timedelta(minutes=1))
NEVER_KNOWN = Owned("unknown", newest_run=NOW - timedelta(days=2))


def instance(status="RUNNING", hours=5.0, **metadata):
    moment = NOW - timedelta(hours=hours)
    ours = {"managed-by": MANAGED_BY, "flow-run-id": "r"}
    return Instance(
        id="i", tool_id="sdt-1", status=status, metadata={**ours, **metadata}, created_at=moment, updated_at=moment
    )


@pytest.mark.parametrize(
    ("one", "owned", "rules", "rule"),
    [
        (instance(), OVER, {}, "orphan"),
        (instance(), OVER, {"orphans": False}, None),
        (instance(), OVER, {"grace_minutes": 61}, None),
        (instance(), RUNS, {}, None),
        (instance(), WAITS, {}, None),
        (instance(), DELETED, {}, "orphan"),
        (instance(hours=0.1), DELETED, {}, None),
        (instance(), NEVER_KNOWN, {}, None),
        (instance(), Owned("unknown"), {}, None),
        (instance(), NEVER_KNOWN, {"sole_server": True}, "orphan"),
        (instance("PAUSED", hours=73, **{KEPT: "pause"}), DELETED, {"paused_hours": 72}, "paused too long"),
        (instance("PAUSED", hours=73, **{KEPT: "pause"}), Owned("unknown"), {"paused_hours": 72}, None),
        (instance(), Owned("foreign"), {}, None),
        (instance(**{"managed-by": "another-program"}), OVER, {}, None),
        (instance(**{"flow-run-id": ""}), OVER, {}, None),
        (instance(**{"ags-flows-protected": "true"}), OVER, {}, None),
        (instance(**{"ags-flows-protected": "false"}), OVER, {}, "orphan"),
        (instance(team="a"), OVER, {"protect": {"team": "*"}}, None),
        (instance(**{KEPT: "keep"}), OVER, {}, None),
        (instance("PAUSED", hours=71, **{KEPT: "pause"}), OVER, {}, None),
        (instance("PAUSED", hours=73, **{KEPT: "pause"}), OVER, {}, "paused too long"),
        (instance("PAUSED", hours=73), OVER, {}, "orphan"),
        (instance("PAUSED", hours=71), WAITS, {}, None),
        (instance("PAUSED", hours=73), WAITS, {}, "paused too long"),
        (instance("PAUSED", hours=73), WAITS, {"paused_hours": None}, None),
        (instance("PAUSED", hours=73), RUNS, {}, None),
        (instance("PAUSED", hours=999, **{KEPT: "pause"}), Owned("foreign"), {}, None),
        (instance("STOP_FAILED"), RUNS, {}, "broken"),
        (instance("STOP_FAILED", hours=0.1), RUNS, {}, None),
        (instance("STOP_FAILED"), RUNS, {"broken": False}, None),
        (instance("PAUSE_FAILED"), OVER, {}, "broken"),
        (instance("PAUSE_FAILED"), RUNS, {}, None),
        (instance("PAUSE_FAILED"), OVER, {"broken": False}, None),
    ],
)
def test_an_instance_is_stopped_only_under_an_enabled_rule_that_is_proved(one, owned, rules, rule):
    verdict = judge_instance(one, owned, ReapRules(**rules), NOW)
    assert verdict.rule == rule
    assert verdict.reason


LONG_OVER = Owned("terminal", "Completed", ended_at=NOW - timedelta(hours=3))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([OVER], OVER),
        ([LONG_OVER, OVER], OVER),
        ([OVER, LONG_OVER], OVER),
        ([OVER, RUNS], RUNS),
        ([RUNS, OVER], RUNS),
        ([OVER, RUNS, OVER], RUNS),
        ([WAITS, RUNS], RUNS),
        ([WAITS, OVER], WAITS),
        ([OVER, Owned("foreign")], Owned("foreign")),
        ([Owned("foreign"), RUNS], RUNS),
        ([DELETED], DELETED),
        ([OVER, DELETED], Owned("unknown", ended_at=OVER.ended_at, newest_run=DELETED.newest_run)),
        ([DELETED, NEVER_KNOWN], NEVER_KNOWN),
        ([DELETED, Owned("unknown")], Owned("unknown")),
        ([], Owned("foreign")),
    ],
)
def test_nested_flow_runs_are_combined_active_runs_first_then_the_latest_end(path, expected):
    assert together(path) == expected


def test_the_sandbox_of_an_active_child_run_is_kept_after_its_parent_ended():
    """With `run_deployment(timeout=0)` the parent is Completed while the child still runs."""
    one = instance(**{"subflow-run-id": "child", HOLDER: "f:r:1 f:child:1 c:x:1"})
    assert judge_instance(one, together([OVER, RUNS]), ReapRules(), NOW).rule is None
    assert judge_instance(one, together([OVER, LONG_OVER]), ReapRules(), NOW).rule == "orphan"


def test_the_grace_time_starts_at_the_latest_end_even_if_another_run_was_deleted():
    just_over = Owned("terminal", "Crashed", ended_at=NOW - timedelta(minutes=2))
    assert judge_instance(instance(), together([just_over, DELETED]), ReapRules(), NOW).rule is None
    assert judge_instance(instance(), together([OVER, DELETED]), ReapRules(), NOW).rule == "orphan"


@pytest.mark.parametrize(
    ("status", "left", "rule"),
    [
        ("RUNNING", 14 * 60, None),
        ("RUNNING", 10 * 60, "orphan"),
        ("RUNNING", None, "orphan"),
        ("PAUSED", 14 * 60, "orphan"),
    ],
)
def test_a_sandbox_whose_lease_is_being_renewed_is_kept_although_its_run_has_ended(status, left, rule):
    expires_at = NOW + timedelta(seconds=left) if left else None
    one = instance(status, **{LEASE: "900"}).model_copy(update={"expires_at": expires_at})
    verdict = judge_instance(one, OVER, ReapRules(), NOW)
    assert verdict.rule == rule
    assert rule or verdict.reason == "its lease may still be renewed"


def tool(days, **tags):
    moment = NOW - timedelta(days=days)
    return Tool(id="sdt-1", name="t", status="ACTIVE", tags={"managed-by": MANAGED_BY, **tags}, created_at=moment)


@pytest.mark.parametrize(
    ("one", "used", "rules", "rule"),
    [
        (tool(8), None, {"tools_unused_days": 7}, "unused tool"),
        (tool(8), None, {}, None),
        (tool(6), None, {"tools_unused_days": 7}, None),
        (tool(8), NOW - timedelta(days=1), {"tools_unused_days": 7}, None),
        (tool(8, **{"managed-by": "another-program"}), None, {"tools_unused_days": 7}, None),
        (tool(8, **{SYNCED_TAG: "nightly"}), None, {"tools_unused_days": 7}, None),
        (tool(8, **{"ags-flows-protected": "true"}), None, {"tools_unused_days": 7}, None),
    ],
)
def test_a_managed_tool_is_deleted_after_a_long_time_without_use(one, used, rules, rule):
    assert judge_tool(one, used, None, ReapRules(**rules), NOW).rule == rule


@pytest.mark.parametrize(
    ("owned", "rules", "rule"),
    [
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=20)), {}, "orphan"),
        (DELETED, {}, "orphan"),
        (NEVER_KNOWN, {}, None),
        (NEVER_KNOWN, {"sole_server": True}, "orphan"),
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=20)), {"orphans": False}, None),
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=5)), {}, None),
        (Owned("active", "Running"), {}, None),
        (Owned("foreign"), {}, None),
        (None, {}, None),
    ],
)
def test_a_tool_created_for_one_run_is_deleted_after_the_run_ended(owned, rules, rule):
    one = tool(1, **{"flow-run-id": "run", "flow-id": "flow"})
    assert judge_tool(one, None, owned, ReapRules(**rules), NOW).rule == rule


def test_a_managed_snapshot_is_deleted_after_its_retention_time():
    old = Snapshot(id="snapshot-1", tags={"managed-by": MANAGED_BY}, created_at=NOW - timedelta(days=15))
    assert judge_snapshot(old, ReapRules(snapshots_days=14), NOW).rule == "old snapshot"
    assert judge_snapshot(old, ReapRules(snapshots_days=16), NOW).rule is None
    assert judge_snapshot(old, ReapRules(), NOW).rule is None
    assert judge_snapshot(old.model_copy(update={"tags": {}}), ReapRules(snapshots_days=14), NOW).rule is None
