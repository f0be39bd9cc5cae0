"""Sandboxes with a code interpreter, made by the real SDK."""

import pytest
from e2b_code_interpreter import Sandbox


@pytest.fixture
def options(ags_emulator):
    exports = ags_emulator.environment
    return {
        "api_key": exports["E2B_API_KEY"],
        "api_url": exports["E2B_API_URL"],
        "sandbox_url": exports["E2B_SANDBOX_URL"],
    }


@pytest.fixture
def sandbox(options):
    sandbox = Sandbox.create(**options)
    yield sandbox
    sandbox.kill()
