"""A sandbox that the tests of one module share: what they do in it does not meet."""

import pytest

from ags_flows.cloud.data_planes import open_plane
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.testing import config_for


@pytest.fixture(scope="module")
def sandbox(ags_emulator_process):
    """Configuration and instance of a running sandbox."""
    ags_emulator_process.reset()
    config = config_for(ags_emulator_process)
    control = config.control_plane()
    instance = control.start_instance(tool="base", timeout="1h")
    wait_instance_running(control, instance.id, timeout=30)
    yield config, instance
    ags_emulator_process.reset()


@pytest.fixture
def plane(sandbox):
    config, instance = sandbox
    return open_plane(config.connection(), instance.id).plane
