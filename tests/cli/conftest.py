"""The command line in this process, with the emulator of the test."""

import contextlib

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from ags_flows.cli import app
from ags_flows.lifecycle.waiting import wait_instance_running


@pytest.fixture
def cli(ags_emulator):
    """Run a command. `server` is the URL of a Prefect server, None for that of the test, empty for none at all."""

    def run(*arguments, server="", columns=None, **environment):
        terminal = {"COLUMNS": str(columns), "FORCE_COLOR": "1", "TERM": "xterm"} if columns else {"COLUMNS": "120"}
        settings = contextlib.nullcontext() if server is None else temporary_settings({PREFECT_API_URL: server or None})
        with settings:
            return CliRunner().invoke(
                app, list(map(str, arguments)), env={**ags_emulator.environment, **terminal, **environment}
            )

    return run


@pytest.fixture
def start(ags_config):
    """Start an instance as a flow run would have started it."""

    def start(**metadata):
        control = ags_config.control_plane()
        ours = {"managed-by": "ags-flows", "flow-run-id": "x", "flow-run-name": "brave-otter", **metadata}
        started = control.start_instance(tool="base", metadata=ours, timeout="10m")
        return wait_instance_running(control, started.id, timeout=20)

    return start


@pytest.fixture
def instance(start):
    return start()
