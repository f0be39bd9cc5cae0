"""The command line in processes: signals, pipes, time, and the emulator."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.demo.servers import read_exports
from ags_flows.errors import QuotaExceededError


def environment_of(emulator, **more):
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        **({"PREFECT_HOME": os.environ["PREFECT_HOME"]} if os.environ.get("PREFECT_HOME") else {}),
        "COLUMNS": "120",
        **emulator.environment,
        **more,
    }


def test_a_port_that_is_taken_is_named(cli, ags_emulator):
    done = cli("emulator", "--port", ags_emulator.port)
    assert done.exit_code == 1
    assert "is taken" in done.stderr and "--port" in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--port", "99999"], "port must be 0 to 65535, got 99999"),
        (["--port", "-1"], "port must be 0 to 65535, got -1"),
        (["--allow-host-port", "0"], "a host port must be 1 to 65535, got 0"),
        (["--allow-host-port", "99999"], "a host port must be 1 to 65535, got 99999"),
        (["--volumes", "FOLDER/missing"], "FOLDER/missing is not a directory"),
        (["--state", "FOLDER/file"], "FOLDER/file: File exists"),
        (["--env-file", "FOLDER/missing/x"], "FOLDER/missing/x: No such file or directory"),
        (["--env-file", "FOLDER"], "FOLDER: Is a directory"),
    ],
)
def test_a_wrong_option_of_the_emulator_is_one_line_that_names_it(options, reason, tmp_path):
    (tmp_path / "file").touch()
    words = [each.replace("FOLDER", str(tmp_path)) for each in options]
    command = [sys.executable, "-m", "ags_flows.cli", "emulator", *(["--port", "0"] if "--port" not in words else [])]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert reason.replace("FOLDER", str(tmp_path)) in done.stderr and len(done.stderr.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_help_loads_neither_prefect_nor_the_sdks():
    code = "import sys; from ags_flows.cli import main; sys.argv = ['ags-flows', '--help']; main()"
    check = "import atexit, sys; atexit.register(lambda: print([n for n in ('prefect', 'e2b') if n in sys.modules]))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", f"{check}; {code}"], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.endswith("[]\n"), done.stderr
    for command in ("emulator", "demo", "run", "swebench", "ps", "exec", "logs", "stop", "reap", "doctor"):
        assert command in done.stdout
    # 0.2 seconds on an idle machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


@pytest.mark.parametrize("command", ["ags-flows ps", "ags-flows logs INSTANCE --lines 100000", "ags-flows --help"])
def test_a_pipe_that_is_closed_early_is_silent(command, ags_emulator, start, ags_config):
    from ags_flows.tasks import exec_command

    instance = start()
    exec_command.fn(instance, "seq 100000", config=ags_config)
    words = command.replace("ags-flows", f"{sys.executable} -m ags_flows.cli").replace("INSTANCE", instance.id)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -1"],
        env=environment_of(ags_emulator),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


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
