"""Whole flows in sandboxes, as in docs/worker.md: a work pool, its worker, a deployment, and an automation."""

import re

import httpx
import pytest
from prefect import flow
from prefect.automations import AutomationCore
from prefect.client.schemas.objects import StateType

FLOW = """\
import time
from prefect import flow
from prefect.runtime import flow_run

@flow
def nightly():
    if flow_run.run_count == 1:
        time.sleep(600)
"""

RETRY = {
    "name": "retry flow runs whose sandbox was lost",
    "trigger": {
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.name": "sandboxes", "prefect.resource.role": "work-pool"},
        "for_each": ["prefect.resource.id"],
        "expect": ["prefect.flow-run.Crashed"],
        "threshold": 1,
        "within": 0,
    },
    "actions": [{"type": "change-flow-run-state", "state": "SCHEDULED", "name": "AwaitingRetry"}],
}


@pytest.fixture
def sandboxes(stage):
    """The stage with a work pool of sandboxes and its worker."""
    stage.call("prefect", "work-pool", "create", "sandboxes", "--type", "ags", "--overwrite")
    with stage.beside("sandboxes", "prefect", "worker", "start", "--pool", "sandboxes", "--name", "sandboxes"):
        yield stage


def test_the_example_is_deployed_from_a_clone_and_leaves_no_sandbox(sandboxes):
    written = sandboxes.call("python", "examples/worker.py")
    assert re.search(r": Completed, in sandbox [0-9a-z]+", written), written
    sandboxes.wait_until(lambda: not sandboxes.live(), 20)


def test_an_automation_retries_a_run_whose_sandbox_was_lost(sandboxes, tmp_path):
    stage = sandboxes
    (tmp_path / "flows.py").write_text(FLOW)
    stage.api.create_automation(AutomationCore.model_validate(RETRY))
    deployment = stage.api.create_deployment(
        stage.api.create_flow(flow(lambda: None, name="nightly")),
        "sandboxed",
        work_pool_name="sandboxes",
        entrypoint="flows.py:nightly",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "/home/user/code"}}],
        job_variables={"image": "prefecthq/prefect:3-latest", "uploads": {str(tmp_path): "code"}},
    )
    run = stage.api.create_flow_run_from_deployment(deployment)
    stage.wait_until(lambda: stage.state(run).type is StateType.RUNNING, 120)
    (first,) = stage.live(run)
    httpx.post(
        f"{stage.exports['AGS_ENDPOINT']}/_emulator/instances/{first.id}/die", trust_env=False
    ).raise_for_status()
    stage.wait_until(lambda: stage.state(run).type is StateType.COMPLETED, 180)
    found = stage.api.read_flow_run(run.id)
    assert found.run_count == 2 and found.infrastructure_pid != first.id
    stage.wait_until(lambda: not stage.live(), 20)
    for known in stage.api.read_automations():
        stage.api.delete_automation(known.id)
