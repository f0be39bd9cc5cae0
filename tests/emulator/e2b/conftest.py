"""One emulator for this folder, an empty account for each test, and the real e2b SDK bound to it."""

import pytest
from e2b import E2B

from ags_flows.emulator import Emulator


@pytest.fixture(scope="session")
def emulator_of_folder():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_of_folder):
    emulator_of_folder.reset()
    return emulator_of_folder


@pytest.fixture
def options(emulator):
    """Keyword arguments that make a call of the SDK use the emulator."""
    return {"api_key": emulator.api_key, "api_url": emulator.url, "sandbox_url": emulator.url}


@pytest.fixture
def sandboxes(options):
    """The class `Sandbox` of the SDK, bound to the emulator."""
    return E2B(**options).Sandbox
