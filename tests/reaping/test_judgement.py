from datetime import datetime, timedelta, timezone

import pytest

from ags_flows.models import Instance, ReapRules, Snapshot, Tool
from ags_flows.ownership import KEPT, MANAGED_BY
from ags_flows.reaping.judgement import SYNCED_TAG, judge_instance, judge_snapshot, judge_tool
from ags_flows.reaping.owners import Owned

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
OVER = Owned("terminal", "Failed", ended_at=NOW - timedelta(hours=1))
WAITS = Owned("active", "Suspended", waits=True)
RUNS = Owned("active", "Running")


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
        (instance(), Owned("unknown"), {}, "orphan"),
        (instance(hours=0.1), Owned("unknown"), {}, None),
        (instance(), Owned("foreign"), {}, None),
        (instance(**{"managed-by": "somebody"}), OVER, {}, None),
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
def test_each_rule_can_be_switched_off_and_spares_what_is_not_proved(one, owned, rules, rule):
    verdict = judge_instance(one, owned, ReapRules(**rules), NOW)
    assert verdict.rule == rule
    assert verdict.reason


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
        (tool(8, **{"managed-by": "somebody"}), None, {"tools_unused_days": 7}, None),
        (tool(8, **{SYNCED_TAG: "nightly"}), None, {"tools_unused_days": 7}, None),
        (tool(8, **{"ags-flows-protected": "true"}), None, {"tools_unused_days": 7}, None),
    ],
)
def test_a_tool_of_ours_goes_when_nothing_used_it_for_long(one, used, rules, rule):
    assert judge_tool(one, used, None, ReapRules(**rules), NOW).rule == rule


@pytest.mark.parametrize(
    ("owned", "rules", "rule"),
    [
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=20)), {}, "orphan"),
        (Owned("unknown"), {}, "orphan"),
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=20)), {"orphans": False}, None),
        (Owned("terminal", "Failed", ended_at=NOW - timedelta(minutes=5)), {}, None),
        (Owned("active", "Running"), {}, None),
        (Owned("foreign"), {}, None),
        (None, {}, None),
    ],
)
def test_a_tool_made_for_one_run_goes_with_it(owned, rules, rule):
    one = tool(1, **{"flow-run-id": "run", "flow-id": "flow"})
    assert judge_tool(one, None, owned, ReapRules(**rules), NOW).rule == rule


def test_a_snapshot_of_ours_goes_after_its_retention():
    old = Snapshot(id="snapshot-1", tags={"managed-by": MANAGED_BY}, created_at=NOW - timedelta(days=15))
    assert judge_snapshot(old, ReapRules(snapshots_days=14), NOW).rule == "old snapshot"
    assert judge_snapshot(old, ReapRules(snapshots_days=16), NOW).rule is None
    assert judge_snapshot(old, ReapRules(), NOW).rule is None
    assert judge_snapshot(old.model_copy(update={"tags": {}}), ReapRules(snapshots_days=14), NOW).rule is None
