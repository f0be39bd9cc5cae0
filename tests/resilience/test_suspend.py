"""A flow waits for input: the process ends, the sandbox is paused, and both go on after the input."""

from datetime import datetime, timedelta, timezone

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

from ags_flows.flows import reap
from ags_flows.models import ReapRules
from ags_flows.reaping.owners import PrefectOwners
from ags_flows.reaping.reaper import Reaper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


@pytest.mark.long
def test_a_suspended_run_goes_on_in_the_same_sandbox_after_the_input(stage, tmp_path):
    target = tmp_path / "steps"
    run = stage.start("asking", tool="asking", target=str(target))
    instance = stage.sandbox(run)
    stage.wait_until(lambda: stage.state(run).type is StateType.PAUSED, 60)
    stage.wait_until(lambda: not stage.engines(run), 30)
    stage.wait_until(lambda: stage.control.get_instance(instance.id).status == "PAUSED", 10)
    # Far beyond its lease: a paused sandbox has no timeout that runs.
    stage.advance(3600)
    assert stage.control.get_instance(instance.id).status == "PAUSED"
    stage.api.resume_flow_run(run.id, run_input={"note": "yes"})
    stage.wait_until(lambda: stage.state(run).type is not StateType.PAUSED, 60)
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["before", "yes", "alive"]
    stage.wait_until(lambda: f"Took over instance {instance.id}" in stage.log(run), 10)
    assert stage.live() == [] and stage.tools() == []


@pytest.mark.long
def test_a_run_without_input_loses_its_sandbox_to_the_reaper_and_goes_on_in_a_new_one_after_late_input(stage, tmp_path):
    target = tmp_path / "steps"
    run = stage.start("asking", tool="asking-late", target=str(target))
    instance = stage.sandbox(run)
    stage.wait_until(lambda: stage.state(run).type is StateType.PAUSED, 60)
    stage.wait_until(lambda: stage.control.get_instance(instance.id).status == "PAUSED", 30)
    spared = reap(rules=ReapRules(), flow_run_id=str(run.id), config=stage.config)
    assert spared.stopped == () and spared.spared_count == {"its flow run waits for input": 1}
    # Other tests of the stage have moved the emulator's clock on: by its time, that is far ahead of ours.
    rules = ReapRules(paused_hours=0)
    later = datetime.now(timezone.utc) + timedelta(days=2)
    with get_client(sync_client=True) as client:
        reaper = Reaper(stage.control, PrefectOwners(client), rules, flow_run_id=str(run.id), now=lambda: later)
        [stopped] = reaper.run().stopped
    assert (stopped.id, stopped.rule, stopped.done) == (instance.id, "paused too long", True)
    stage.wait_until(lambda: stage.control.get_instance(instance.id).status == "STOPPED", 30)
    stage.api.resume_flow_run(run.id, run_input={"note": "late"})
    stage.wait_until(lambda: stage.state(run).type is not StateType.PAUSED, 60)
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["before", "late", "alive"]
    assert stage.live() == [] and stage.tools() == []
