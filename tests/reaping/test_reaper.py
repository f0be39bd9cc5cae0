from datetime import datetime, timedelta, timezone

import pytest

from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import UnreachableError
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import ReapRules, ToolSpec
from ags_flows.ownership import MANAGED_BY
from ags_flows.reaping.owners import Owned
from ags_flows.reaping.reaper import Reaper

from .conftest import FixedOwners

OVER = Owned("terminal", "Crashed", ended_at=datetime.now(timezone.utc) - timedelta(hours=1))
RUNS = Owned("active", "Running")


def reaper(config, owners, at=None, **options):
    now = at or (lambda: datetime.now(timezone.utc))
    rules = options.pop("rules", ReapRules())
    return Reaper(PacedControlPlane(config.connection()), owners, rules, now=now, **options)


def live(config):
    control = config.control_plane()
    return {one.id for one in control.list_instances() if one.status in ("STARTING", "RUNNING", "PAUSED")}


def test_orphans_are_stopped_and_other_sandboxes_are_kept_with_a_reason(ags_config, start):
    orphan, worked = start("over"), start("runs")
    foreign = ags_config.control_plane().start_instance(tool="base", timeout="1h")
    reaped = []
    owners = FixedOwners({"over": OVER, "runs": RUNS})
    report = reaper(ags_config, owners, on_reaped=reaped.append).run()
    assert [one.id for one in report.stopped] == [orphan.id]
    assert report.stopped[0].done and "Crashed" in report.stopped[0].reason
    assert reaped == list(report.stopped)
    assert [(one.id, one.reason) for one in report.spared] == [(worked.id, "its flow run is Running")]
    assert report.seen == 3
    assert live(ags_config) == {worked.id, foreign.id}


def test_a_dry_run_reports_the_same_and_stops_nothing(ags_config, start):
    orphan = start("over")
    report = reaper(ags_config, FixedOwners({"over": OVER}), dry_run=True).run()
    assert [(one.id, one.rule, one.done) for one in report.stopped] == [(orphan.id, "orphan", False)]
    assert live(ags_config) == {orphan.id}


def test_a_run_that_is_retried_just_before_the_stop_keeps_its_sandbox(ags_config, start):
    orphan = start("over")
    owners = FixedOwners({"over": OVER})
    owners.before[2] = lambda: owners.states.update(over=RUNS)
    report = reaper(ags_config, owners).run()
    assert not report.stopped
    assert live(ags_config) == {orphan.id}


def test_nothing_more_is_stopped_once_the_prefect_server_does_not_respond(ags_config, start):
    start("over")

    def silent():
        raise UnreachableError("The Prefect server did not respond.")

    owners = FixedOwners({"over": OVER})
    owners.before[2] = silent
    report = reaper(ags_config, owners).run()
    assert not report.stopped
    assert "did not respond" in report.incomplete
    owners.before[owners.asked + 1] = silent
    with pytest.raises(UnreachableError, match="did not respond"):
        reaper(ags_config, owners).run()
    assert len(live(ags_config)) == 1


def test_at_most_limits_how_many_are_stopped_and_the_oldest_are_stopped_first(ags_config, start):
    first, second, third = (start("over") for _ in range(3))
    report = reaper(ags_config, FixedOwners({"over": OVER}), rules=ReapRules(at_most=2)).run()
    assert [one.id for one in report.stopped] == [first.id, second.id]
    assert report.left == 1
    assert live(ags_config) == {third.id}


def test_reaping_can_be_limited_to_one_flow_run(ags_config, start):
    start("a")
    other = start("b")
    owners = FixedOwners({"a": OVER, "b": OVER})
    report = reaper(ags_config, owners, flow_run_id="a").run()
    assert [one.flow_run_id for one in report.stopped] == ["a"]
    assert live(ags_config) == {other.id}


def test_a_sandbox_is_kept_if_any_of_its_nested_flow_runs_is_active(ags_config, start):
    spared = [start("over", "runs"), start("over", "over", "runs"), start("over", "runs", "over")]
    orphan = start("over", "over-2", "over-3")
    owners = FixedOwners({"over": OVER, "over-2": OVER, "over-3": OVER, "runs": RUNS})
    report = reaper(ags_config, owners).run()
    assert [one.id for one in report.stopped] == [orphan.id]
    assert live(ags_config) == {one.id for one in spared}


def test_the_sandboxes_of_a_flow_run_in_the_middle_of_three_can_be_reaped(ags_config, start):
    middle, other = start("outer", "middle", "inner"), start("outer", "other")
    owners = FixedOwners(dict.fromkeys(("outer", "middle", "inner", "other"), OVER))
    report = reaper(ags_config, owners, flow_run_id="middle").run()
    assert [one.id for one in report.stopped] == [middle.id]
    assert live(ags_config) == {other.id}


def test_a_sandbox_is_kept_for_as_long_as_its_lease_is_renewed(ags_config, start):
    one = start("over", lease=3600)
    owners = FixedOwners({"over": OVER})
    report = reaper(ags_config, owners).run()
    assert [spared.reason for spared in report.spared] == ["its lease may still be renewed"]
    later = datetime.now(timezone.utc) + timedelta(minutes=20)
    report = reaper(ags_config, owners, at=lambda: later).run()
    assert [stopped.id for stopped in report.stopped] == [one.id]


def test_the_tool_of_an_active_nested_flow_run_is_kept(ags_config):
    control = ags_config.control_plane()

    def made(name, subflow):
        tags = {"managed-by": MANAGED_BY, "flow-run-id": "over", "subflow-run-id": subflow}
        return control.create_tool(ToolSpec(name=name, image="python:3.11", tags=tags))

    gone, _ = made("gone", "over-too"), made("works", "runs")
    owners = FixedOwners({"over": OVER, "over-too": OVER, "runs": RUNS})
    report = reaper(ags_config, owners).run()
    assert [(one.kind, one.id, one.done) for one in report.stopped] == [("tool", gone, True)]


def test_only_old_tools_and_snapshots_that_are_managed_are_deleted(ags_config, start):
    control = ags_config.control_plane()
    ours = control.create_tool(ToolSpec(name="ours", image="python:3.11", tags={"managed-by": MANAGED_BY}))
    theirs = control.create_tool(ToolSpec(name="theirs", image="python:3.11"))
    instance = start("runs")
    kept = control.create_snapshot(instance.id, name="kept")
    old = control.create_snapshot(instance.id, name="old", tags={"managed-by": MANAGED_BY})
    rules = ReapRules(tools_unused_days=7, snapshots_days=7)
    later = datetime.now(timezone.utc) + timedelta(days=8)
    report = reaper(ags_config, FixedOwners({"runs": RUNS}), at=lambda: later, rules=rules).run()
    assert {(one.kind, one.id) for one in report.stopped if one.done} == {("tool", ours), ("snapshot", old.id)}
    assert theirs in [tool.id for tool in control.list_tools()]
    assert [one.id for one in control.list_snapshots() if one.status == "ACTIVE"] == [kept.id]


def test_a_tool_created_for_one_run_is_deleted_with_its_sandboxes_unless_others_use_it(ags_config):
    control = ags_config.control_plane()

    def made(name, run):
        tags = {"managed-by": MANAGED_BY, "flow-run-id": run}
        return control.create_tool(ToolSpec(name=name, image="python:3.11", tags=tags))

    alone, shared, owned = made("alone", "over"), made("shared", "over"), made("owned", "runs")
    for tool in (alone, shared):
        wait_tool_active(control, tool, timeout=20)
        label = {"managed-by": MANAGED_BY, "flow-run-id": "over"}
        control.start_instance(tool=tool, timeout="1h", metadata=label)
    control.start_instance(tool=shared, timeout="1h", metadata={"managed-by": MANAGED_BY, "flow-run-id": "runs"})
    owners = FixedOwners({"over": OVER, "runs": RUNS})
    planned = reaper(ags_config, owners, dry_run=True).run()
    assert [one.id for one in planned.stopped if one.kind == "tool"] == [alone]
    retried = FixedOwners({"over": OVER, "runs": RUNS})
    # Look-ups: to judge, to check again, for all tools, and then for this tool.
    retried.before[4] = lambda: retried.states.update(over=RUNS)
    assert not [one for one in reaper(ags_config, retried, dry_run=True).run().stopped if one.kind == "tool"]
    report = reaper(ags_config, owners, flow_run_id="over").run()
    assert [(one.id, one.flow_run_id, one.done) for one in report.stopped if one.kind == "tool"] == [
        (alone, "over", True)
    ]
    assert {shared, owned} <= {tool.id for tool in control.list_tools()}
    assert alone not in {tool.id for tool in control.list_tools()}


def test_a_sandbox_that_cannot_be_stopped_is_reported_and_the_others_are_stopped(ags_emulator, ags_config, start):
    one, two = start("over"), start("over")
    ags_emulator.fault("error", "StopSandboxInstance", code="UnauthorizedOperation", message="no")
    report = reaper(ags_config, FixedOwners({"over": OVER})).run()
    assert sorted(each.done for each in report.stopped) == [False, True]
    failed = next(each for each in report.stopped if not each.done)
    assert "UnauthorizedOperation" in failed.problem
    assert live(ags_config) == {failed.id}
    assert {each.id for each in report.stopped} == {one.id, two.id}


def test_a_sandbox_that_cannot_be_stopped_does_not_count_for_at_most(ags_emulator, ags_config, start):
    old, younger, youngest = (start("over") for _ in range(3))
    ags_emulator.fault("error", "StopSandboxInstance", code="UnauthorizedOperation", message="no")
    report = reaper(ags_config, FixedOwners({"over": OVER}), rules=ReapRules(at_most=1)).run()
    assert [(one.id, one.done) for one in report.stopped] == [(old.id, False), (younger.id, True)]
    assert report.left == 1
    assert live(ags_config) == {old.id, youngest.id}


def test_throttled_requests_are_retried(ags_emulator, ags_config, start):
    start("over")
    ags_emulator.fault("error", "StopSandboxInstance", code="RequestLimitExceeded", message="slow", times=2)
    ags_emulator.fault("error", "DescribeSandboxInstanceList", code="RequestLimitExceeded", message="slow", times=2)
    report = reaper(ags_config, FixedOwners({"over": OVER})).run()
    assert [one.done for one in report.stopped] == [True]
