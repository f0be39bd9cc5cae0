"""An open session for functions."""

import pytest

from ags_flows.session import SandboxSession


@pytest.fixture(scope="module")
def session(sandbox):
    config, instance = sandbox
    return SandboxSession("base", instance, config, [])
