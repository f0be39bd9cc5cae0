"""Responses of a gateway, in the place of those of a sandbox."""

import time

import pytest

from ags_flows.errors import AGSFlowsError, CodeTimeoutError, OutcomeUnknownError
from ags_flows.tasks import (
    create_code_context,
    exec_command,
    run_code,
    start_instance,
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


def test_a_cell_without_a_response_takes_its_time_limit_and_no_longer(ags_emulator, instance, ags_config):
    run_code.fn(instance, "1", config=ags_config)
    ags_emulator.stream_fault("blackhole", path="/execute")
    began = time.monotonic()
    with pytest.raises(CodeTimeoutError):
        run_code.fn(instance, "1", timeout=12, config=ags_config)
    assert 11 < time.monotonic() - began < 22
