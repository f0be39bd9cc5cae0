"""What interrupts the wait for a command also kills the command in the sandbox, with or without a journal."""

import time

import pytest
from prefect import flow, task

from ags_flows import sandbox_session
from ags_flows.errors import CommandTimeoutError
from ags_flows.tasks import exec_command

pytestmark = pytest.mark.usefixtures("prefect_server")
SECONDS = 1.5


def interrupted_in_the_main_thread(sandbox, command, durable, config):
    exec_command.with_options(timeout_seconds=SECONDS)(
        sandbox.instance, command, durable=durable, timeout=60, config=config
    )


def interrupted_in_another_thread(sandbox, command, durable, config):
    limited = exec_command.with_options(timeout_seconds=SECONDS)
    limited.submit(sandbox.instance, command, durable=durable, timeout=60, config=config).result()


def interrupted_in_a_task(sandbox, command, durable, config):
    @task(timeout_seconds=SECONDS)
    def limited():
        exec_command.fn(sandbox.instance, command, durable=durable, timeout=60, config=config)

    limited()


def at_its_own_limit(sandbox, command, durable, config):
    exec_command(sandbox.instance, command, durable=durable, timeout=1, config=config)


@pytest.mark.parametrize(
    "interrupted",
    [interrupted_in_the_main_thread, interrupted_in_another_thread, interrupted_in_a_task, at_its_own_limit],
)
@pytest.mark.parametrize("durable", [True, False])
def test_nothing_of_an_interrupted_command_runs_on(ags_config, interrupted, durable):
    @flow
    def limited():
        with sandbox_session("base", config=ags_config) as sandbox:
            begun = time.monotonic()
            with pytest.raises((TimeoutError, CommandTimeoutError)):
                interrupted(sandbox, "(setsid sleep 4746 &) ; sleep 4747; echo done", durable, ags_config)
            assert time.monotonic() - begun < 20
            return sandbox.run("pgrep -f '[s]leep 474'", durable=False).stdout

    assert limited() == ""
