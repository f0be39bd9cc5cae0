"""A facade for the emulator of the test."""

import pytest

from ags_flows import AGSRuntime


@pytest.fixture
def runtime(ags_config):
    return AGSRuntime(ags_config)


@pytest.fixture
def sandbox(runtime):
    with runtime.create_e2b_sandbox("code-interpreter-v1") as sandbox:
        yield sandbox
