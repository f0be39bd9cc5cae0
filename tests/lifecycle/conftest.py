"""Keepers of leases, with and without an emulator."""

import pytest

from ags_flows.lifecycle.waiting import wait_instance_running

from .leases import Stage


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def emulated(ags_emulator):
    stage = Stage(ags_emulator)
    yield stage
    stage.close()


@pytest.fixture
def running(control):
    """Start an instance, with a timeout and metadata, and wait until it runs."""

    def start(timeout="40s", metadata=None):
        started = control.start_instance(tool="base", timeout=timeout, metadata=metadata)
        return wait_instance_running(control, started.id, timeout=20)

    return start
