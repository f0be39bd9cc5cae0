"""The one engine of jobs: what people see of a run, and that all ways to run a job have the same options."""

import inspect
import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import StateType

from ags_flows import AGSConfig, SandboxJob
from ags_flows.errors import ConfigurationError
from ags_flows.flows import provision_and_run, run_job
from ags_flows.job.page import RunPage
from ags_flows.job.spec import JobSpec
from ags_flows.models import Step

pytestmark = pytest.mark.usefixtures("prefect_server")

COMMANDS = ["echo one", "echo two; exit 3", "echo three"]


def until(condition):
    """Return what the server knows once it knows it: task runs and events arrive a little later."""
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def client():
    with get_client(sync_client=True) as client:
        yield client


def pages_of(client, flow_run_id):
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    return [one for one in client.read_artifacts(artifact_filter=chosen) if one.key == "sandbox-run"]


def test_a_command_that_failed_is_red_and_the_commands_after_it_are_listed_as_not_run(ags_config, client):
    state = provision_and_run(COMMANDS, "base", check=False, config=ags_config, return_state=True)
    report, run = state.result(), state.state_details.flow_run_id
    assert [(step.name, step.status, step.message) for step in report.steps if step.name.startswith("exec")] == [
        ("exec: echo one", "completed", ""),
        ("exec: echo two; exit 3", "failed", "exit code 3"),
        ("exec: echo three", "skipped", "not run"),
    ]
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run]))

    def task_runs():
        known = {one.name: one.state_type for one in client.read_task_runs(flow_run_filter=chosen)}
        return known if len(known) >= 5 and None not in known.values() else None

    states = until(task_runs)
    assert [name for name, kind in states.items() if kind is StateType.FAILED] == ["exec: echo two; exit 3"]
    (page,) = pages_of(client, run)
    assert page.description.startswith("Exit code 3") and "2 of 3 commands run" in page.description
    assert "| exec: echo three | 0.00 | not run |" in page.data
    assert "**failed** exit code 3" in page.data


def test_a_step_of_a_session_whose_command_failed_is_marked(ags_config):
    from ags_flows import sandbox_session

    with sandbox_session("base", config=ags_config) as sandbox:
        assert sandbox.run("exit 5").exit_code == 5
    (step,) = [step for step in sandbox.steps if step.name == "exec: exit 5"]
    assert (step.status, step.message) == ("failed", "exit code 5")


def test_all_ways_to_run_a_job_have_the_same_options():
    everywhere = set(JobSpec.model_fields) - {"commands", "ensure_tool"}
    assert everywhere <= set(inspect.signature(provision_and_run.fn).parameters)
    # What a saved job makes is kept for the next time.
    assert everywhere - {"delete_tool"} <= set(SandboxJob.model_fields)


def test_a_saved_job_has_the_options_and_the_page_of_provision_and_run(ags_config, client, tmp_path):
    ags_config.save("of-job", overwrite=True)
    job = SandboxJob(
        command="echo x >> tries; test $(wc -l < tries) -ge 2",
        tool="base",
        retries=2,
        retry_delay=0,
        lease="5m",
        snapshot="after",
        downloads={"tries": str(tmp_path / "tries")},
        config=AGSConfig.load("of-job"),
    )
    job.save("nightly-etl", overwrite=True)
    state = run_job(SandboxJob.load("nightly-etl"), return_state=True)
    report = state.result()
    assert sum(step.name.startswith("exec") for step in report.steps) == 2
    assert set(report.snapshots) == {"after"}
    assert (tmp_path / "tries").read_text() == "x\nx\n"
    run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.name == "nightly-etl on base"
    (page,) = pages_of(client, run.id)
    assert report.instance_id in page.data and f"/flow-run/{run.id}" in page.data
    assert f"ags-flows logs {report.instance_id}" in page.data


def test_cpu_and_memory_are_those_of_the_sandbox(ags_config):
    report = provision_and_run("nproc", "base", cpu="1", memory="512Mi", config=ags_config)
    instance = ags_config.control_plane().get_instance(report.instance_id)
    assert (instance.cpu_cores, instance.memory_gib) == (1, 0.5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"cpu": "2"}, "cpu and memory belong together"),
        ({"cpu": "many", "memory": "1Gi"}, "not an amount of CPU"),
        ({"assets": ["out.csv"]}, "'out.csv' is not the key of an asset"),
        ({"command": []}, "command is empty: the list"),
        ({"command": [" "]}, "command is empty"),
    ],
    ids=str,
)
def test_options_that_break_a_rule_are_refused_before_anything_is_started(ags_config, options, rule):
    with pytest.raises(ConfigurationError, match=rule) as refused:
        provision_and_run(**{"command": "true", "tool": "base", "config": ags_config, **options})
    assert "JobSpec" not in str(refused.value) and "self." not in str(refused.value)
    assert ags_config.control_plane().list_instances() == []


def test_assets_are_materialized_with_what_was_produced(ags_config, client, tmp_path):
    target = tmp_path / "out.csv"
    report = provision_and_run(
        "echo 1,2 > out.csv",
        "base",
        downloads={"out.csv": str(target)},
        assets=["s3://bucket/out.csv"],
        config=ags_config,
    )

    def materialized():
        query = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}}
        events = client.request("POST", "/events/filter", json=query).json()["events"]
        return [one["payload"] for one in events if one["payload"].get("sandbox") == report.instance_id]

    (payload,) = until(materialized)
    assert payload["files"] == {"out.csv": 4} and payload["command"] == "echo 1,2 > out.csv"


def test_a_command_that_failed_materializes_nothing(ags_config):
    report = provision_and_run("exit 1", "base", assets=["s3://bucket/x"], check=False, config=ags_config)
    assert report.result.exit_code == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_run_that_is_interrupted_has_a_page(ags_config, client, error):
    runs = []

    @flow
    def interrupted():
        from prefect.runtime import flow_run

        runs.append(flow_run.id)
        with RunPage([Step(name="start instance", seconds=1.0)], [], {}, ags_config.connection()):
            raise error

    with pytest.raises(error):
        interrupted()
    (page,) = pages_of(client, runs[0])
    assert "| start instance | 1.00 | ok |" in page.data
