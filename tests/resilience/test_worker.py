"""The same with a process worker: hooks and engines in processes that know nothing of each other."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType

from ags_flows.demo.servers import end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


@pytest.fixture(scope="module")
def worker(running_stage):
    """A worker of a process pool, and a function that starts runs on it."""
    stage = running_stage
    stage.api.create_work_pool(WorkPoolCreate(name="machines", type="process"), overwrite=True)
    here = Path(__file__).parent
    counting = flow.from_source(source=str(here), entrypoint="job.py:counting")
    with stage.settings():
        deployment = counting.deploy(
            name="worked", work_pool_name="machines", build=False, push=False, print_next_steps=False
        )
    log = (stage.directory / "worker.log").open("ab")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "machines", "--type", "process"]
    process = subprocess.Popen(
        command, env=stage.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    log.close()
    yield lambda **parameters: stage.api.create_flow_run_from_deployment(deployment, parameters=parameters)
    end(process, signal.SIGTERM)


@pytest.mark.long
def test_a_run_that_is_cancelled_on_a_worker_leaves_nothing_within_ten_seconds(stage, worker):
    run = worker(tool="worked-cancelled", lines=1000)
    instance = stage.sandbox(run, timeout=90)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 2, 30)
    stage.cancel(run)
    stage.wait_until(lambda: not stage.live(), 10)
    assert stage.ended(run).type is StateType.CANCELLED
    stage.wait_until(lambda: not stage.tools(), 10)


@pytest.mark.long
def test_a_run_that_is_killed_on_a_worker_goes_on_after_a_retry(stage, worker, tmp_path):
    target = tmp_path / "all"
    run = worker(tool="worked-killed", lines=25, target=str(target))
    instance = stage.sandbox(run, timeout=90)
    stage.wait_until(lambda: len(stage.counted(instance)) >= 3, 30)
    stage.kill(run)
    assert stage.ended(run).type is StateType.CRASHED
    # The worker reports the crash again, seconds later, and would overwrite an earlier retry.
    time.sleep(8)
    assert stage.control.get_instance(instance.id).status == "RUNNING"
    stage.retry(run)
    assert stage.ended(run).type is StateType.COMPLETED, stage.log(run)
    assert target.read_text().split() == ["first", "last", *map(str, range(1, 26))]
    assert stage.live() == [] and stage.tools() == []
