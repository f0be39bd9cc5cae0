"""Responses of a gateway, in the place of those of a sandbox."""

import time

import pytest

from ags_flows.errors import AGSFlowsError, CodeTimeoutError, InvalidRequestError, OutcomeUnknownError
from ags_flows.tasks import (
    create_code_context,
    download_directory,
    download_file,
    exec_command,
    list_files,
    read_file,
    remove_path,
    run_code,
    start_instance,
    upload_directory,
    upload_file,
    wait_instance_running,
    write_file,
)

STATUSES = (408, 425, 499, 500, 502, 503, 504)


@pytest.fixture
def instance(ags_config):
    return wait_instance_running.fn(start_instance.fn("code-interpreter-v1", config=ags_config), config=ags_config)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("port", [49983, 49999])
def test_what_may_have_run_has_an_unknown_outcome(ags_emulator, instance, ags_config, status, port):
    ags_emulator.stream_fault("status", status=status, port=port, times=1)
    with pytest.raises(OutcomeUnknownError):
        if port == 49983:
            exec_command.fn(instance, "echo", durable=False, config=ags_config)
        else:
            # The claim of a cell is a request to the other port.
            run_code.fn(instance, "1", config=ags_config)


@pytest.mark.parametrize("status", STATUSES)
def test_what_may_be_repeated_is_retried(ags_emulator, instance, ags_config, tmp_path, status):
    (tmp_path / "a").write_text("a")
    repeatable = {
        49983: [
            lambda: upload_file.fn(instance, tmp_path / "a", "a", config=ags_config),
            lambda: write_file.fn(instance, "b", "b", config=ags_config),
        ],
        49999: [lambda: create_code_context.fn(instance, config=ags_config)],
    }
    for port, calls in repeatable.items():
        for call in calls:
            ags_emulator.stream_fault("status", status=status, port=port, times=1)
            with pytest.raises(AGSFlowsError) as caught:
                call()
            assert caught.value.retryable, caught.value
            call()
    ags_emulator.stream_fault("status", status=status, port=49983, times=1)
    assert exec_command.fn(instance, "echo ran", config=ags_config).stdout == "ran\n"


PATHS = ("/process.Process/Start", "/filesystem.Filesystem/ListDir", "/files")


@pytest.mark.parametrize("after", [None, 0.1])
@pytest.mark.parametrize("path", PATHS)
def test_a_durable_command_goes_on_after_a_reset(ags_emulator, instance, ags_config, path, after):
    command = "echo ran >>ran; seq 1 30000; sleep 1; cat - ran"
    ags_emulator.stream_fault("cut", path=path, reset=True, after_seconds=after, times=2)
    result = exec_command.fn(instance, command, stdin="input\n", config=ags_config, log_output=False)
    assert result.stdout.split() == [*map(str, range(1, 30001)), "input", "ran"]


@pytest.mark.parametrize("after", [None, 0.3])
def test_a_direct_command_has_an_unknown_outcome_after_a_reset(ags_emulator, instance, ags_config, after):
    ags_emulator.stream_fault("cut", path="/process.Process/Start", reset=True, after_seconds=after)
    with pytest.raises(OutcomeUnknownError, match="may have run"):
        exec_command.fn(instance, "sleep 2", durable=False, config=ags_config)


def test_each_operation_is_retried_after_a_reset_at_each_request(ags_emulator, instance, ags_config, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("a")
    calls = [
        lambda: upload_file.fn(instance, tmp_path / "d" / "a", "a", config=ags_config),
        lambda: upload_directory.fn(instance, tmp_path / "d", "d", config=ags_config),
        lambda: write_file.fn(instance, "b", "b", config=ags_config),
        lambda: read_file.fn(instance, "b", config=ags_config),
        lambda: download_file.fn(instance, "b", tmp_path / "b", config=ags_config),
        lambda: download_directory.fn(instance, "d", tmp_path / "back", config=ags_config),
        lambda: list_files.fn(instance, ".", config=ags_config),
        lambda: remove_path.fn(instance, "d", config=ags_config),
    ]
    for call in calls:
        call()
        for path in (*PATHS, "/filesystem.Filesystem/Remove"):
            ags_emulator.stream_fault("cut", path=path, reset=True)
            try:
                call()
            except AGSFlowsError as error:
                assert error.retryable, error
            ags_emulator.clear_faults()


def test_a_reset_while_temporary_files_are_removed_is_ignored(ags_emulator, instance, ags_config):
    ags_emulator.stream_fault("cut", path="/filesystem.Filesystem/Remove", reset=True)
    write_file.fn(instance, "written", "x", config=ags_config)
    assert read_file.fn(instance, "written", config=ags_config) == b"x"


@pytest.mark.parametrize("status", [200, 204])
def test_input_that_a_gateway_accepts_in_place_of_the_sandbox_is_sent_again(ags_emulator, instance, ags_config, status):
    ags_emulator.stream_fault("status", path="/files", status=status)
    assert exec_command.fn(instance, "cat", stdin="input", config=ags_config).stdout == "input"


def test_input_of_a_command_that_is_not_started_is_removed(ags_emulator, instance, ags_config):
    def left():
        return exec_command.fn(instance, "ls -d /tmp/.ags_flows-in-* 2>/dev/null || :", config=ags_config).stdout

    ags_emulator.stream_fault("status", path="/process.Process/Start", status=404)
    with pytest.raises(AGSFlowsError):
        exec_command.fn(instance, "cat", stdin="input", config=ags_config)
    assert left() == ""
    with pytest.raises(InvalidRequestError, match="not started"):
        exec_command.fn(instance, "cat", stdin="input", cwd="/missing", config=ags_config)
    assert left() == ""


def test_a_cell_without_a_response_takes_its_time_limit_and_no_longer(ags_emulator, instance, ags_config):
    run_code.fn(instance, "1", config=ags_config)
    ags_emulator.stream_fault("blackhole", path="/execute")
    began = time.monotonic()
    with pytest.raises(CodeTimeoutError):
        run_code.fn(instance, "1", timeout=12, config=ags_config)
    assert 11 < time.monotonic() - began < 22
