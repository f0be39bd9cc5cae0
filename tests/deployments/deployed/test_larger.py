"""The same flows with PostgreSQL and Redis under the server, its services apart, and two workers."""

import contextlib
import json

import psutil
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
    stage.wait_until(lambda: "60 of 60 items succeeded" in stage.log(batch), 30)
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


def test_a_batch_in_four_shards_survives_the_loss_of_one_of_two_workers(larger_stage, tmp_path):
    stage = larger_stage
    items = [f"item-{number}" for number in range(80)]
    # Each item returns which items have run twice in its sandbox.
    command = 'echo "$ITEM" >> ran; sleep 0.5; sort ran | uniq -d'
    parameters = {"items": items, "command": command, "sandboxes": 8, "shards": 4, "results": str(tmp_path)}
    run = stage.start("run-batch/nightly-batch", tool="base", **parameters)

    def results():
        return [part.read_text().count('"result"') for part in tmp_path.glob("shard-*/ledger-*")]

    stage.wait_until(lambda: len(results()) == 4 and min(results()) > 0, 240)
    # The machine of the worker that does not execute the parent goes down, with all that it executes.
    parent = stage.worker_of(run)
    assert parent in stage.workers
    victim = next(name for name in stage.workers if name != parent)
    process = psutil.Process(stage.workers[victim].pid)
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            one.kill()
    stage.completed(run, 480)
    again = [shard for shard in stage.runs("run-batch-shard/machines") if shard.run_count > 1]
    assert again
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == items
    assert {(line["status"], line["stdout"]) for line in lines} == {("ok", "")}
    assert stage.live() == []
