import importlib.util
import sys
from pathlib import Path

import httpx
import pytest

# Tests are not a package: load shared code by its path.
_spec = importlib.util.spec_from_file_location("served", Path(__file__).parent / "served.py")
served_module = sys.modules["served"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(served_module)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A server for all tests of a worker."""
    server = served_module.Served(tmp_path_factory.mktemp("sandboxes"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def name(served):
    """One sandbox for the tests of a file."""
    name = served.make(env={"GIVEN": "by the sandbox", "BOTH": "sandbox"})
    yield name
    if name in served.machines:
        served.kill(name)


@pytest.fixture
def box(served, name):
    """The synchronous SDK, attached."""
    return served.attach(name)


@pytest.fixture
def async_box(served, name):
    """The asynchronous SDK, attached."""
    return served.attach_async(name)


@pytest.fixture
def http(served, name):
    """Plain HTTP with the sandbox's token."""
    headers = {"E2b-Sandbox-Id": name, "X-Access-Token": served_module.TOKEN}
    with httpx.Client(base_url=served.url, headers=headers, timeout=30) as client:
        yield client
