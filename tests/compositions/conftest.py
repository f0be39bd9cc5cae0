"""Attempts of one run without a Prefect server, and sessions whose process was killed."""

import uuid

import pytest

from ags_flows.cloud.data_planes import close_plane
from ags_flows.ownership import LIVE, Frame, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.session import Opening


@pytest.fixture(autouse=True)
def quick_tools(request):
    """Create tools immediately, in the tests that use the emulator of this process."""
    if "ags_emulator" in request.fixturenames:
        request.getfixturevalue("ags_emulator").transition("tool.create", "at_once")


@pytest.fixture
def attempt():
    """Return a function: `with attempt(2):` makes the steps of the block steps of the second attempt of one run."""

    root = uuid.uuid4().hex

    def enter(number):
        return acting_as(Execution(frames=(Frame("flow", root, number),), owner=Owner("run-1")))

    return enter


@pytest.fixture
def killed_session(ags_config):
    """Return a function that opens a session as `sandbox_session` does, in a process that is killed.

    Nothing closes the session, its lease is not renewed any more, and the connections of the process are gone.
    """

    def open_and_die(tool="base", work=lambda sandbox: None, lease=600, delete_tool=False, snapshot_id=None):
        opening = Opening(ags_config, [], lease, {}, delete_tool)
        sandbox = opening.open(tool, None, snapshot_id, "")
        opening._leased.lease.release()
        try:
            work(sandbox)
        finally:
            close_plane(ags_config.connection(), sandbox.instance.id)
        return sandbox

    return open_and_die


@pytest.fixture
def live(ags_config):
    """Return a function that lists the ids of the live instances."""

    def ids():
        return sorted(one.id for one in ags_config.control_plane().list_instances() if one.status in LIVE)

    return ids


@pytest.fixture
def status_of(ags_config):
    """Return a function that gives the status of an instance."""
    return lambda instance_id: ags_config.control_plane().get_instance(instance_id).status
