from datetime import datetime, timedelta, timezone

import pytest

from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import UnreachableError
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import ReapRules, ToolSpec
from ags_flows.ownership import MANAGED_BY
from ags_flows.reaping.owners import Owned
from ags_flows.reaping.reaper import Reaper

from .conftest import SaidOwners

OVER = Owned("terminal", "Crashed", ended_at=datetime.now(timezone.utc) - timedelta(hours=1))
RUNS = Owned("active", "Running")


def reaper(config, owners, at=None, **options):
    now = at or (lambda: datetime.now(timezone.utc))
    rules = options.pop("rules", ReapRules())
    return Reaper(PacedControlPlane(config.connection()), owners, rules, now=now, **options)


def live(config):
    control = config.control_plane()
    return {one.id for one in control.list_instances() if one.status in ("STARTING", "RUNNING", "PAUSED")}


def test_orphans_are_stopped_and_all_others_spared_with_a_reason(ags_config, start):
    orphan, worked = start("over"), start("runs")
    foreign = ags_config.control_plane().start_instance(tool="base", timeout="1h")
    told = []
    owners = SaidOwners({"over": OVER, "runs": RUNS})
    report = reaper(ags_config, owners, on_reaped=told.append).run()
    assert [one.id for one in report.stopped] == [orphan.id]
    assert report.stopped[0].done and "Crashed" in report.stopped[0].reason
    assert told == list(report.stopped)
    assert [(one.id, one.reason) for one in report.spared] == [(worked.id, "its flow run is Running")]
    assert report.seen == 3
    assert live(ags_config) == {worked.id, foreign.id}


def test_a_dry_run_says_the_same_and_stops_nothing(ags_config, start):
    orphan = start("over")
    report = reaper(ags_config, SaidOwners({"over": OVER}), dry_run=True).run()
    assert [(one.id, one.rule, one.done) for one in report.stopped] == [(orphan.id, "orphan", False)]
    assert live(ags_config) == {orphan.id}


def test_a_run_that_is_retried_in_the_last_moment_keeps_its_sandbox(ags_config, start):
    orphan = start("over")
    owners = SaidOwners({"over": OVER})
    owners.before[2] = lambda: owners.said.update(over=RUNS)
    report = reaper(ags_config, owners).run()
    assert not report.stopped
    assert live(ags_config) == {orphan.id}


def test_a_prefect_server_that_falls_silent_stops_nothing_more(ags_config, start):
    start("over")

    def silent():
        raise UnreachableError("The Prefect server did not say.")

    owners = SaidOwners({"over": OVER})
    owners.before[2] = silent
    report = reaper(ags_config, owners).run()
    assert not report.stopped
    assert "did not say" in report.incomplete
    owners.before[owners.asked + 1] = silent
    with pytest.raises(UnreachableError, match="did not say"):
        reaper(ags_config, owners).run()
    assert len(live(ags_config)) == 1


def test_no_more_are_stopped_than_allowed_and_the_oldest_go_first(ags_config, start):
    first, second, third = (start("over") for _ in range(3))
    report = reaper(ags_config, SaidOwners({"over": OVER}), rules=ReapRules(at_most=2)).run()
    assert [one.id for one in report.stopped] == [first.id, second.id]
    assert report.left == 1
    assert live(ags_config) == {third.id}


def test_one_run_alone_can_be_reaped(ags_config, start):
    start("a")
    other = start("b")
    owners = SaidOwners({"a": OVER, "b": OVER})
    report = reaper(ags_config, owners, flow_run_id="a").run()
    assert [one.flow_run_id for one in report.stopped] == ["a"]
    assert live(ags_config) == {other.id}


def test_every_flow_run_on_the_path_is_looked_up_and_any_active_one_spares(ags_config, start):
    spared = [start("over", "runs"), start("over", "over", "runs"), start("over", "runs", "over")]
    orphan = start("over", "over-2", "over-3")
    owners = SaidOwners({"over": OVER, "over-2": OVER, "over-3": OVER, "runs": RUNS})
    report = reaper(ags_config, owners).run()
    assert [one.id for one in report.stopped] == [orphan.id]
    assert live(ags_config) == {one.id for one in spared}


def test_the_sandboxes_of_a_flow_run_in_the_middle_of_three_can_be_reaped(ags_config, start):
    middle, other = start("outer", "middle", "inner"), start("outer", "other")
    owners = SaidOwners(dict.fromkeys(("outer", "middle", "inner", "other"), OVER))
    report = reaper(ags_config, owners, flow_run_id="middle").run()
    assert [one.id for one in report.stopped] == [middle.id]
    assert live(ags_config) == {other.id}


def test_a_kept_lease_spares_until_it_is_not_renewed_any_more(ags_config, start):
    one = start("over", lease=3600)
    owners = SaidOwners({"over": OVER})
    report = reaper(ags_config, owners).run()
    assert [spared.reason for spared in report.spared] == ["its lease is being renewed"]
    later = datetime.now(timezone.utc) + timedelta(minutes=20)
    report = reaper(ags_config, owners, at=lambda: later).run()
    assert [stopped.id for stopped in report.stopped] == [one.id]


def test_the_tool_of_a_nested_flow_run_that_works_is_spared(ags_config):
    control = ags_config.control_plane()

    def made(name, subflow):
        tags = {"managed-by": MANAGED_BY, "flow-run-id": "over", "subflow-run-id": subflow}
        return control.create_tool(ToolSpec(name=name, image="python:3.11", tags=tags))

    gone, _ = made("gone", "over-too"), made("works", "runs")
    owners = SaidOwners({"over": OVER, "over-too": OVER, "runs": RUNS})
    report = reaper(ags_config, owners).run()
    assert [(one.kind, one.id, one.done) for one in report.stopped] == [("tool", gone, True)]


def test_tools_and_snapshots_of_ours_go_when_they_are_old_and_others_stay(ags_config, start):
    control = ags_config.control_plane()
    ours = control.create_tool(ToolSpec(name="ours", image="python:3.11", tags={"managed-by": MANAGED_BY}))
    theirs = control.create_tool(ToolSpec(name="theirs", image="python:3.11"))
    instance = start("runs")
    kept = control.create_snapshot(instance.id, name="kept")
    old = control.create_snapshot(instance.id, name="old", tags={"managed-by": MANAGED_BY})
    rules = ReapRules(tools_unused_days=7, snapshots_days=7)
    later = datetime.now(timezone.utc) + timedelta(days=8)
    report = reaper(ags_config, SaidOwners({"runs": RUNS}), at=lambda: later, rules=rules).run()
    assert {(one.kind, one.id) for one in report.stopped if one.done} == {("tool", ours), ("snapshot", old.id)}
    assert theirs in [tool.id for tool in control.list_tools()]
    assert [one.id for one in control.list_snapshots() if one.status == "ACTIVE"] == [kept.id]


def test_a_tool_that_a_run_made_for_itself_goes_with_its_sandboxes_unless_others_use_it(ags_config):
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
    owners = SaidOwners({"over": OVER, "runs": RUNS})
    planned = reaper(ags_config, owners, dry_run=True).run()
    assert [one.id for one in planned.stopped if one.kind == "tool"] == [alone]
    retried = SaidOwners({"over": OVER, "runs": RUNS})
    # Judged, looked at again, asked for all tools, and then for this one.
    retried.before[4] = lambda: retried.said.update(over=RUNS)
    assert not [one for one in reaper(ags_config, retried, dry_run=True).run().stopped if one.kind == "tool"]
    report = reaper(ags_config, owners, flow_run_id="over").run()
    assert [(one.id, one.flow_run_id, one.done) for one in report.stopped if one.kind == "tool"] == [
        (alone, "over", True)
    ]
    assert {shared, owned} <= {tool.id for tool in control.list_tools()}
    assert alone not in {tool.id for tool in control.list_tools()}


def test_one_that_cannot_be_stopped_is_told_and_the_others_go(ags_emulator, ags_config, start):
    one, two = start("over"), start("over")
    ags_emulator.fault("error", "StopSandboxInstance", code="UnauthorizedOperation", message="no")
    report = reaper(ags_config, SaidOwners({"over": OVER})).run()
    assert sorted(each.done for each in report.stopped) == [False, True]
    failed = next(each for each in report.stopped if not each.done)
    assert "UnauthorizedOperation" in failed.problem
    assert live(ags_config) == {failed.id}
    assert {each.id for each in report.stopped} == {one.id, two.id}


def test_one_that_cannot_be_stopped_does_not_stand_in_the_way_of_younger_ones(ags_emulator, ags_config, start):
    old, younger, youngest = (start("over") for _ in range(3))
    ags_emulator.fault("error", "StopSandboxInstance", code="UnauthorizedOperation", message="no")
    report = reaper(ags_config, SaidOwners({"over": OVER}), rules=ReapRules(at_most=1)).run()
    assert [(one.id, one.done) for one in report.stopped] == [(old.id, False), (younger.id, True)]
    assert report.left == 1
    assert live(ags_config) == {old.id, youngest.id}


def test_throttling_is_waited_out(ags_emulator, ags_config, start):
    start("over")
    ags_emulator.fault("error", "StopSandboxInstance", code="RequestLimitExceeded", message="slow", times=2)
    ags_emulator.fault("error", "DescribeSandboxInstanceList", code="RequestLimitExceeded", message="slow", times=2)
    report = reaper(ags_config, SaidOwners({"over": OVER})).run()
    assert [one.done for one in report.stopped] == [True]
