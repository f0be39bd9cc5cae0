"""Saved jobs: triggered by hand, in flows, side by side; and what ends their sandboxes."""

import gc
import os
import signal
import subprocess
import sys
import weakref

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

from ags_flows import AGSConfig, SandboxJob
from ags_flows.errors import CommandFailedError, CommandTimeoutError, ConfigurationError, NotFoundError
from ags_flows.flows import run_job
from ags_flows.tasks import list_instances, list_tools


@pytest.fixture(autouse=True)
def quick_tools(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")


@pytest.fixture
def job(ags_config):
    def made(command, **fields):
        return SandboxJob(**{"command": command, "tool": "job", "image": "python:3.11", "config": ags_config, **fields})

    return made


@pytest.fixture
def survives_sigterm():
    """Prefect sends the signal again, after the flow run, to the process that ended by it."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


def live(config):
    return [one for one in list_instances.fn(config=config) if one.status in ("STARTING", "RUNNING", "PAUSED")]


def test_a_job_takes_files_runs_and_brings_files_back(job, ags_config, tmp_path):
    (tmp_path / "in.txt").write_text("3 4")
    run = job(
        "read a b < in.txt; echo $((a * b)) $UNIT > out.txt; cat out.txt",
        uploads={str(tmp_path / "in.txt"): "in.txt"},
        downloads={"out.txt": str(tmp_path / "out.txt")},
        env={"UNIT": "m2"},
    ).trigger()
    run.wait_for_completion()
    report = run.fetch_result()
    assert (report.result.stdout, report.instance_id) == ("12 m2\n", run.instance_id)
    assert (tmp_path / "out.txt").read_text() == "12 m2\n"
    assert report.downloads and report.steps[-1].name == "cleanup"
    assert run.fetch_result() is report
    assert live(ags_config) == []
    # The tool stays for the next time.
    assert [tool.name for tool in list_tools.fn(name="job", config=ags_config)] == ["job"]


def test_several_jobs_run_side_by_side(job, ags_config):
    runs = [job(f"echo {number}").trigger() for number in range(3)]
    assert len(live(ags_config)) == 3
    assert [run.fetch_result().result.stdout for run in runs] == ["0\n", "1\n", "2\n"]
    assert live(ags_config) == []


def test_a_command_that_fails_brings_its_files_and_is_an_error_with_check(job, ags_config, tmp_path):
    failing = {"downloads": {"log": str(tmp_path / "log"), "none": str(tmp_path / "none")}}
    with pytest.raises(CommandFailedError, match="exit code 3"):
        job("echo why > log; exit 3", **failing).trigger().fetch_result()
    assert (tmp_path / "log").read_text() == "why\n"
    assert job("exit 3", check=False).trigger().fetch_result().result.exit_code == 3
    with pytest.raises(NotFoundError):
        job("true", **failing).trigger().fetch_result()
    assert live(ags_config) == []


def test_the_sandbox_of_a_job_that_failed_is_kept_also_without_check(job, ags_config):
    run = job("exit 3", check=False, on_failure="keep").trigger()
    assert run.fetch_result().result.exit_code == 3
    assert [one.id for one in live(ags_config)] == [run.instance_id]


def test_a_job_that_takes_too_long_is_killed(job, ags_config, monkeypatch):
    monkeypatch.setattr("ags_flows.job.block.parse_duration", lambda _text: 1)
    with pytest.raises(CommandTimeoutError, match="limit of 1 s"):
        job("sleep 60").trigger().wait_for_completion()
    assert live(ags_config) == []


def test_the_sandbox_of_a_run_that_was_dropped_is_stopped(job, ags_config):
    run = job("sleep 60").trigger()
    assert len(live(ags_config)) == 1
    del run
    gc.collect()
    assert live(ags_config) == []


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("kind", "error", "left"),
    [
        (None, TerminationSignal(signal.SIGTERM), 2),
        (StateType.CANCELLED, TerminationSignal(signal.SIGTERM), 0),
    ],
    ids=["crashed", "cancelled"],
)
def test_only_a_crash_leaves_the_sandboxes_of_jobs_that_were_not_waited_for(
    job, ags_config, kind, error, left, survives_sigterm, caplog
):
    flow_run_ids, triggered = [], []

    @flow
    def nightly():
        runs = [job("sleep 60").trigger(), job("sleep 61").trigger()]
        triggered.extend(weakref.ref(run) for run in runs)
        flow_run_ids.append(FlowRunContext.get().flow_run.id)
        raise error

    with pytest.raises(type(error)):
        nightly()
    if kind is not None:
        # What Prefect's runner does after it has ended the process of a cancelled run.
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_ids[0], State(type=kind), force=True)
    # The exception's traceback, also in the log, holds the frame, and the frame the runs.
    error.__traceback__ = None
    caplog.clear()
    gc.collect()
    assert [one() for one in triggered] == [None, None]
    assert len(live(ags_config)) == left


def script(code, emulator):
    keys = {"TENCENTCLOUD_SECRET_ID": emulator.secret_id, "TENCENTCLOUD_SECRET_KEY": emulator.secret_key}
    environment = {**os.environ, **keys, "AGS_ENDPOINT": emulator.url, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


SCRIPT = """
from ags_flows import SandboxJob

runs = [SandboxJob(command="sleep 60", tool="base").trigger() for _ in range(2)]
print("triggered")
raise ValueError("on purpose")
"""


def test_jobs_that_were_not_waited_for_are_stopped_at_the_exit_of_a_script_that_failed(ags_emulator, ags_config):
    done = script(SCRIPT, ags_emulator)
    assert (done.stdout, done.returncode) == ("triggered\n", 1)
    assert "ValueError: on purpose" in done.stderr
    assert live(ags_config) == []


FORKING_SCRIPT = """
import os, sys
from ags_flows import SandboxJob

run = SandboxJob(command="sleep 60", tool="base").trigger()
child = os.fork()
if child == 0:
    sys.exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, run._execution.sandbox.read("/etc/hostname") != b"", flush=True)
"""


@pytest.mark.long
def test_a_forked_process_that_exits_does_not_stop_the_jobs_of_its_parent(ags_emulator):
    done = script(FORKING_SCRIPT, ags_emulator)
    assert done.stdout == "7 True\n", done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_job_that_was_dropped_in_a_run_that_goes_on_is_stopped(job, ags_config):
    @flow
    def nightly():
        job("sleep 60").trigger()
        gc.collect()
        return len(live(ags_config))

    assert nightly() == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"command": " "}, "command: it is empty"),
        ({"command": "x", "image": "python:3.11"}, "tool: an image needs the name"),
        ({"command": "x", "timeout": "1s"}, "30s to 24h"),
        ({"command": "x", "user": "admin"}, "user"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_and_rule(fields, told):
    with pytest.raises(ConfigurationError, match=told):
        SandboxJob(**fields)


@pytest.mark.usefixtures("prefect_server")
def test_a_job_takes_the_name_of_a_configuration(job, ags_config):
    ags_config.save("named-for-jobs", overwrite=True)
    named = job("echo hi", config="named-for-jobs")
    assert named.trigger().fetch_result().result.stdout == "hi\n"
    named.save("with-a-name", overwrite=True)
    assert SandboxJob.load("with-a-name").config.region == ags_config.region
    with pytest.raises(ConfigurationError, match="no AGS Config block named 'nix'"):
        job("true", config="nix")


def test_a_file_that_is_not_there_is_reported_before_anything_starts(job, ags_config):
    with pytest.raises(ConfigurationError, match=r"uploads: no such file or directory: nowhere\.csv"):
        job("true", uploads={"nowhere.csv": "x"}).trigger()
    assert list_tools.fn(name="job", config=ags_config) == []


@pytest.mark.usefixtures("prefect_server")
def test_a_saved_job_runs_as_a_flow_whose_steps_are_task_runs(job, ags_config):
    Secret(value="very-secret").save("job-token", overwrite=True)
    ags_config.save("for-jobs", overwrite=True)
    job("echo token=$TOKEN", secrets={"TOKEN": "job-token"}, config=AGSConfig.load("for-jobs")).save("nightly")
    state = run_job(SandboxJob.load("nightly"), return_state=True)
    assert "very-secret" not in state.result().result.stdout
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert "very-secret" not in str(run.parameters)
    assert [step.name.split(":")[0] for step in state.result().steps] == [
        "ensure tool", "start instance", "wait for instance", "exec", "cleanup",
    ]  # fmt: skip


@pytest.mark.usefixtures("prefect_server")
def test_a_retry_of_the_run_finds_the_command_that_runs_already(job):
    attempts = []

    @flow(retries=1)
    def nightly():
        run = job("date +%s%N; sleep 2").trigger()
        attempts.append(run)
        if len(attempts) == 1:
            # The object is kept, so that nothing ends the sandbox, as when the process dies.
            raise RuntimeError("died")
        return run.fetch_result()

    report = nightly()
    assert attempts[0].instance_id == attempts[1].instance_id == report.instance_id
    assert attempts[0].handle == attempts[1].handle
    assert len(report.result.stdout.split()) == 1
    attempts[0]._execution.__exit__(None, None, None)
