"""The command line as an operator uses it, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from prefect.settings import PREFECT_API_URL

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.demo.servers import read_exports
from ags_flows.errors import QuotaExceededError
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.tasks import start_command


def environment_of(emulator, **more):
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        **({"PREFECT_HOME": os.environ["PREFECT_HOME"]} if os.environ.get("PREFECT_HOME") else {}),
        "COLUMNS": "120",
        **emulator.environment,
        **more,
    }


@pytest.fixture
def cli(ags_emulator):
    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "ags_flows.cli", *arguments],
            env=environment_of(ags_emulator, **environment),
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def instance(ags_config):
    control = ags_config.control_plane()
    ours = {"managed-by": "ags-flows", "flow-run-id": "x", "flow-run-name": "brave-otter"}
    started = control.start_instance(tool="base", metadata=ours, timeout="10m")
    return wait_instance_running(control, started.id, timeout=20)


def test_ps_lists_what_flows_have_started_with_ids_to_copy(cli, instance, ags_config):
    other = ags_config.control_plane().start_instance(tool="base", timeout="10m")
    listed = cli("ps")
    assert listed.returncode == 0
    assert instance.id in listed.stdout and "brave-otter" in listed.stdout
    assert other.id not in listed.stdout
    assert other.id in cli("ps", "--all").stdout
    assert listed.stdout.splitlines()[0].split("\t")[0] == "instance"
    (shown,) = json.loads(cli("ps", "--json").stdout)
    assert (shown["instance"], shown["state"], shown["flow run id"]) == (instance.id, "RUNNING", "x")


def test_exec_gives_output_and_exit_code(cli, instance):
    done = cli("exec", instance.id, "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_stop_stops(cli, instance, ags_config):
    done = cli("stop", "nobody", instance.id)
    assert (done.returncode, done.stdout) == (1, f"Stopped {instance.id}\n")
    assert "There is no instance 'nobody'" in done.stderr
    assert ags_config.control_plane().get_instance(instance.id).status in ("STOPPING", "STOPPED")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("reap",), {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "The Prefect server does not answer"),
        (("stop", "nobody"), {}, "There is no instance 'nobody'"),
        (("ps",), {"TENCENTCLOUD_SECRET_KEY": "wrong"}, "AuthFailure.SignatureFailure"),
        (("ps",), {"TENCENTCLOUD_SECRET_KEY": ""}, "TENCENTCLOUD_SECRET_KEY not set"),
        (("ps",), {"AGS_ENDPOINT": "http://127.0.0.1:9"}, "Is the emulator running there"),
        (("ps",), {"AGS_ENDPOINT": "http://"}, "http_endpoint"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_without_a_traceback(cli, arguments, environment, told):
    done = cli(*arguments, **environment)
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_told(cli, ags_emulator):
    done = cli("emulator", "--port", str(ags_emulator.port))
    assert done.returncode == 1
    assert "is taken" in done.stderr and "--port" in done.stderr


def test_run_passes_output_and_exit_code_on(cli, tmp_path, ags_config):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.csv").write_text("a\nb\n")
    command = "wc -l < in/data.csv; echo warn >&2; mkdir out; cp in/data.csv out; exit 7"
    up, down = f"{tmp_path / 'in'}:in", f"out/*.csv:{tmp_path / 'got'}"
    done = cli("run", "--quiet", "--image", "python:3.11", "--upload", up, "--download", down, "--", command)
    assert (done.returncode, done.stdout) == (7, "2\n")
    assert done.stderr.splitlines() == ["warn", f"-- Exit code 7: {command}"]
    assert (tmp_path / "got" / "data.csv").read_text() == "a\nb\n"
    assert not [one for one in ags_config.control_plane().list_instances() if one.status == "RUNNING"]
    assert "run-" not in str(ags_config.control_plane().list_tools())


def test_run_gives_a_program_its_arguments_and_reports_in_json(cli):
    done = cli("run", "--image", "python:3.11", "--env", "WORD=hello", "--json", "--", "printenv", "WORD")
    assert json.loads(done.stdout)["result"]["stdout"] == "hello\n"
    assert "-- Created tool run-" in done.stderr


@pytest.mark.timeout(120)
def test_run_with_a_prefect_server_is_recorded_there(cli, prefect_server):
    done = cli("run", "--image", "python:3.11", "--", "echo recorded", PREFECT_API_URL=PREFECT_API_URL.value())
    assert (done.returncode, done.stdout) == (0, "recorded\n"), done.stderr
    assert "View at" in done.stderr


def test_ctrl_c_stops_the_sandbox(ags_emulator, ags_config):
    command = [sys.executable, "-m", "ags_flows.cli", "run", "--image", "python:3.11", "--", "echo begun; sleep 100"]
    environment = environment_of(ags_emulator)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout.readline() == "begun\n"
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=20)
    assert job.returncode != 0
    states = {one.status for one in ags_config.control_plane().list_instances()}
    assert states <= {"STOPPING", "STOPPED"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--tool", "a", "--image", "b", "--", "true"), "give one of them"),
        (("run", "--upload", "x", "--", "true"), "upload: 'x' is not of the form LOCAL:REMOTE"),
        (("run", "--on-failure", "x", "--", "true"), "on-failure: 'x' is none of stop, keep, pause"),
        (("run", "--timeout", "-1", "--", "true"), "timeout: -1 s is less than none"),
        (("run", "--tool", "nix", "--", "true"), "Sandbox tool 'nix' does not exist"),
        (("run", "--image", "no.invalid/x", "--", "true"), "failed to pull image no.invalid/x"),
        (("run", "--secret", "A=nix", "--tool", "base", "--", "true"), "secret: Secret blocks are on a Prefect server"),
        (("reap", "--dry-run"), "PREFECT_API_URL is not set"),
        (("logs", "nobody"), "instance nobody does not exist"),
    ],
)
def test_a_job_that_cannot_be_run_is_told_in_one_line(cli, arguments, told):
    done = cli(*arguments)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_logs_show_what_nobody_follows(cli, instance, ags_config):
    start_command.fn(instance, "echo first; echo oops >&2; exit 3", config=ags_config)
    time.sleep(1.1)
    start_command.fn(instance, "for i in 1 2 3; do echo $i; sleep 0.5; done; echo end", config=ags_config)
    followed = cli("logs", instance.id, "--follow")
    assert followed.stdout == "1\n2\n3\nend\n"
    first, second = json.loads(cli("logs", instance.id, "--json").stdout)
    assert (first["exit code"], second["exit code"]) == ("3", "0")
    assert second["command"].startswith("for i in")
    one = cli("logs", instance.id, "--number", "1")
    assert (one.stdout, one.stderr) == ("first\n", "oops\n")
    assert "not in 1..2" in cli("logs", instance.id, "--number", "3").stderr
    assert "No durable command" in cli("logs", instance.id, "--user", "root").stderr


@pytest.mark.timeout(120)
def test_reap_says_what_it_would_stop(cli, instance, prefect_server):
    done = cli("reap", "--dry-run", "--grace", "0", "--json", PREFECT_API_URL=PREFECT_API_URL.value())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dry_run"] is True
    told = cli("reap", "--dry-run", PREFECT_API_URL=PREFECT_API_URL.value())
    assert "1 live sandboxes seen" in told.stderr


@pytest.mark.timeout(120)
def test_doctor_finds_what_is_wrong(cli, prefect_server):
    well = cli("doctor", "--json", PREFECT_API_URL=PREFECT_API_URL.value())
    found = {one["check"]: one for one in json.loads(well.stdout)}
    assert well.returncode == 0
    assert found["credentials"]["verdict"] == found["clock"]["verdict"] == found["Prefect server"]["verdict"] == "ok"
    ill = cli("doctor", TENCENTCLOUD_SECRET_KEY="wrong", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert ill.returncode == 1
    assert "AuthFailure.SignatureFailure" in ill.stdout
    assert "http://127.0.0.1:9/api does not answer" in ill.stdout
    without = cli("doctor", TENCENTCLOUD_SECRET_ID="", PREFECT_API_URL="")
    assert "TENCENTCLOUD_SECRET_ID not set" in without.stdout and "PREFECT_API_URL is not set" in without.stdout
    astray = cli("doctor", AGS_REGION="ap-guangzhou", AGS_DOMAIN="ap-shanghai.tencentags.com", PREFECT_API_URL="")
    assert "disagree" in astray.stdout


def test_an_emulator_with_limits_refuses_the_eleventh_instance(tmp_path):
    command = [sys.executable, "-m", "ags_flows.cli", "emulator", "--port", "0", "--limits", "--env-file"]
    file = tmp_path / "emulator.env"
    with subprocess.Popen([*command, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not file.exists():
                assert process.poll() is None
                time.sleep(0.05)
            exports = read_exports(file)
            keys = TencentCloudCredentials(
                secret_id=exports["TENCENTCLOUD_SECRET_ID"], secret_key=exports["TENCENTCLOUD_SECRET_KEY"]
            )
            control = AGSConfig(http_endpoint=exports["AGS_ENDPOINT"], credentials=keys).control_plane()
            for _ in range(10):
                control.start_instance(tool="base")
            with pytest.raises(QuotaExceededError):
                control.start_instance(tool="base")
        finally:
            process.terminate()
