"""The command line as an operator uses it, in processes of its own."""

import os
import subprocess
import sys

import pytest

from ags_flows.cloud.waiting import wait_instance_running


@pytest.fixture
def cli(ags_emulator):
    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "ags_flows.cli", *arguments],
            env={"PATH": os.environ["PATH"], "COLUMNS": "120", **ags_emulator.environment, **environment},
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


def test_exec_gives_output_and_exit_code(cli, instance):
    done = cli("exec", instance.id, "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_stop_stops(cli, instance, ags_config):
    assert cli("stop", instance.id).stdout == f"Stopped {instance.id}\n"
    assert ags_config.control_plane().get_instance(instance.id).status in ("STOPPING", "STOPPED")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
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
