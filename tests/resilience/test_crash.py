"""A flow that dies anywhere loses nothing, does nothing twice, and leaves nothing running."""

import signal

import pytest
from prefect.client.schemas.objects import StateType

from ags_flows import SandboxJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def expected(lines):
    return [str(number) for number in range(1, lines + 1)]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_killed_flow_goes_on_after_a_retry_where_it_was(stage, tmp_path, number):
    target = tmp_path / "all"
    run = stage.start("counting", tool=f"killed-{number.name}", lines=30, target=str(target))
    instance = stage.sandbox(run)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 3, 30)
    stage.kill(run, number)
    assert stage.ended(run).type is StateType.CRASHED
    assert stage.control.get_instance(instance.id).status == "RUNNING"
    stage.retry(run)
    state = stage.ended(run)
    assert state.type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["first", "last", *expected(30)]
    assert (tmp_path / "all.out").read_text() == "".join(f"line {number}\n" for number in range(1, 31))
    attached = "Attached to the command that an earlier attempt started"
    stage.wait_until(lambda: f"Took over instance {instance.id}" in stage.log(run), 10)
    stage.wait_until(lambda: attached in stage.log(run), 10)
    assert stage.live() == []
    assert stage.tools() == []


@pytest.mark.long
def test_a_saved_job_goes_on_when_the_process_that_triggered_it_is_killed(stage, tmp_path):
    target = tmp_path / "counted"
    command = "for i in $(seq 25); do echo $i >> counted; sleep 0.3; done"
    job = SandboxJob(command=command, tool="job", image="python:3.11", downloads={"counted": str(target)})
    identifier = job.save("killed", overwrite=True)
    run = stage.start("run-job", job={"$ref": {"block_document_id": str(identifier)}})
    instance = stage.sandbox(run)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 3, 30)
    stage.kill(run)
    assert stage.ended(run).type is StateType.CRASHED
    stage.retry(run)
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == expected(25)
    assert stage.live() == []
    # The tool of a saved job stays for the next time.
    stage.delete_tool("job")


def test_a_cancelled_run_stops_its_sandbox_and_deletes_its_tool_within_ten_seconds(stage):
    run = stage.start("counting", tool="cancelled", lines=1000)
    instance = stage.sandbox(run)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 2, 30)
    stage.cancel(run)
    stage.wait_until(lambda: not stage.live(), 10)
    assert stage.ended(run).type is StateType.CANCELLED
    stage.wait_until(lambda: not stage.tools(), 5)


@pytest.mark.long
def test_a_run_that_dies_after_its_sandbox_ended_runs_again_in_a_new_one(stage, tmp_path):
    target = tmp_path / "all"
    run = stage.start("counting", tool="renewed", lines=12, target=str(target))
    first = stage.sandbox(run)
    stage.wait_until(lambda: len(stage.counted(first)) >= 2, 30)
    stage.kill(run)
    stage.ended(run)
    stage.control.stop_instance(first.id)
    stage.retry(run)
    second = stage.sandbox(run)
    assert second.id != first.id
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["first", "last", *expected(12)]
    assert stage.live() == [] and stage.tools() == []


@pytest.mark.long
def test_a_sandbox_whose_owner_was_killed_and_never_came_back_is_gone_with_its_lease(stage):
    run = stage.start("counting", tool="left", lines=1000)
    instance = stage.sandbox(run)
    stage.wait_until(lambda: stage.counted(instance), 30)
    stage.kill(run)
    stage.ended(run)
    stage.advance(61)
    stage.wait_until(lambda: stage.control.get_instance(instance.id).status == "STOPPED", 10)
    assert stage.control.get_instance(instance.id).stop_reason == "timeout"
    for tool in stage.tools():
        stage.delete_tool(tool)


@pytest.mark.long
def test_a_run_whose_runner_and_engine_were_killed_is_marked_crashed_and_can_be_retried(stage, tmp_path):
    from ags_flows.run.automations import LOST_RUNS, lost_runs_file, sync_automations

    impatient = tmp_path / "lost-runs.yaml"
    impatient.write_text(lost_runs_file().read_text().replace("within: 540", "within: 45"))
    sync_automations([impatient])
    assert [one.change for one in sync_automations([impatient])] == ["left"]
    assert len(stage.api.read_automations_by_name(LOST_RUNS)) == 1
    target = tmp_path / "all"
    # The lease outlives the time after which heartbeats are missed.
    run = stage.start("counting", tool="lost", lines=12, target=str(target), lease="10m")
    instance = stage.sandbox(run)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 2, 30)
    engines = stage.engines(run)
    stage.runner.kill()
    stage.runner.wait()
    for process in engines:
        process.kill()
    assert stage.state(run).type is StateType.RUNNING
    stage.serve()
    assert stage.ended(run, timeout=120).type is StateType.CRASHED
    stage.retry(run)
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["first", "last", *expected(12)]
