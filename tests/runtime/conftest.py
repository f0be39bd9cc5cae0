"""A facade for the emulator of the test."""

import pytest

from ags_flows import AGSRuntime


@pytest.fixture
def runtime(ags_emulator):
    keys = {name: ags_emulator.environment[f"TENCENTCLOUD_{name.upper()}"] for name in ("secret_id", "secret_key")}
    return AGSRuntime(http_endpoint=ags_emulator.environment["AGS_ENDPOINT"], **keys)


@pytest.fixture
def sandbox(runtime):
    with runtime.create_e2b_sandbox("code-interpreter-v1") as sandbox:
        yield sandbox
