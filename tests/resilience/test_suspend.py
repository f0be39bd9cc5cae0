"""A person is asked: the process ends, the sandbox is paused, and both go on after the answer."""

import pytest
from prefect.client.schemas.objects import StateType

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def test_a_suspended_run_goes_on_in_the_same_sandbox_after_the_answer(stage, tmp_path):
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
    stage.wait_until(lambda: f"Adopted instance {instance.id}" in stage.log(run), 10)
    assert stage.live() == [] and stage.tools() == []
