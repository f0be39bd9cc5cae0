"""Real SWE-ReX servers in emulated sandboxes."""

from pathlib import Path

import pytest

from ags_flows.emulator.sandbox import isolation
from ags_flows.models import ToolSpec
from ags_flows.ownership import LIVE
from ags_flows.swerex import AGSDeploymentConfig


def pytest_collection_modifyitems(items):
    if isolation().bwrap is not None:
        return
    skip = pytest.mark.skip(reason="without namespaces a sandbox shares the ports of the host")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and "sandboxes" in item.fixturenames:
            item.add_marker(skip)


@pytest.fixture
def sandboxes(ags_emulator):
    """An emulator with a tool of type `swebench`, as in an account that has one."""
    ags_emulator.transition("tool.create", "at_once")
    return ags_emulator


@pytest.fixture
def configured(sandboxes, ags_config):
    """Make the configuration of a deployment; without other fields, of a tool that comes with a SWE-ReX server."""
    ags_config.control_plane().create_tool(
        ToolSpec(name="swe", type="swebench", image="swebench/base:latest", image_registry_type="system"),
        client_token="swe",
    )

    def configured(**fields):
        return AGSDeploymentConfig(**{"tool": "swe", "lease": "2m", "startup_timeout": 60, "ags": ags_config, **fields})

    return configured


@pytest.fixture
def live(ags_config):
    """Look for the instances that live."""

    def live():
        return [one for one in ags_config.control_plane().list_instances() if one.status in LIVE]

    return live
