"""The same flows with PostgreSQL and Redis under the server, its services apart, and two workers."""

from prefect.client.schemas.objects import StateType


def test_jobs_batch_and_reap_run_on_two_workers(larger_stage):
    stage = larger_stage
    jobs = [stage.start("provision-and-run/run-command", command=f"echo number {n}; sleep 5") for n in range(6)]
    batch = stage.start("run-batch/nightly-batch", items=[f"item-{n}" for n in range(60)], command='echo "$ITEM"')
    for run in jobs:
        stage.completed(run, 240)
        assert "Exit code 0" in stage.artifacts(run)["sandbox-run"]
    stage.completed(batch, 240)
    # Logs arrive at the server a little later than states.
    stage.wait_until(lambda: "60 of 60 items done" in stage.log(batch), 30)
    took = [stage.worker_of(run) for run in [*jobs, batch]]
    assert set(took) == {"one", "two"}, took
    assert stage.live() == []
    reap = stage.completed(stage.start("reap/nightly-reap", rules={"grace_minutes": 0}))
    stage.wait_until(lambda: "Stopped 0 of 0 live sandboxes" in stage.log(reap), 30)


def test_a_batch_that_is_killed_goes_on_after_a_retry_on_whichever_worker(larger_stage):
    stage = larger_stage
    items = [f"item-{n}" for n in range(12)]
    run = stage.start("run-batch/nightly-batch", items=items, command='sleep 2; echo "$ITEM"', sandboxes=2)
    stage.wait_until(lambda: stage.live(run) and stage.state(run).type is StateType.RUNNING, 90)
    stage.wait_until(lambda: "items" in stage.log(run) or len(stage.live(run)) == 2, 60)
    stage.kill(run)
    assert stage.ended(run).type is StateType.CRASHED
    before = {one.id for one in stage.live(run)}
    assert before
    stage.retry(run)
    stage.completed(run, 240)
    assert stage.live() == []


def test_what_a_deleted_run_left_is_reaped(larger_stage):
    stage = larger_stage
    run = stage.start(
        "provision-and-run/run-command", command="sleep 300", tool={"name": "left", "image": "python:3.11"}
    )
    (instance,) = stage.wait_until(lambda: stage.live(run), 90)
    stage.kill(run)
    stage.ended(run)
    stage.completed(stage.start("reap/reap-one-run", flow_run_id=str(run.id), rules={"grace_minutes": 0}))
    stage.wait_until(lambda: not stage.live(run), 20)
    assert stage.control.get_instance(instance.id).status in ("STOPPING", "STOPPED")
