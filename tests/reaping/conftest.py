"""Sandboxes with the metadata of flow runs, and owners whose states a test sets."""

from datetime import datetime, timezone

import pytest

from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.ownership import Frame, Holder, Owner, Place, Step, label
from ags_flows.reaping.owners import Owned


class FixedOwners:
    """Owners from a mapping.

    `asked` counts the look-ups; `before` maps the number of a look-up to a function that is called before it.
    """

    def __init__(self, states):
        self.states = states
        self.asked = 0
        self.before = {}

    def look_up(self, runs):
        self.asked += 1
        if change := self.before.pop(self.asked, None):
            change()
        return {run: self.states.get(run, Owned("foreign")) for run in runs}


@pytest.fixture
def start(ags_config):
    """Return a function that starts a sandbox of a flow run."""
    control = ags_config.control_plane()

    def started(*path, lease=None, **metadata):
        """Start a sandbox that belongs to nested flow runs, outermost first."""
        owner = Owner(path[0], flow_run_name=f"name-{path[0]}", flow_id="f" * 8)
        frames = [Frame("flow", run) for run in path]
        step = Step("start", "p", path[0], Place(), Holder((*frames, Frame("call", "c"))))
        own = label(step, owner, datetime.now(timezone.utc), lease)
        instance = control.start_instance(tool="base", timeout="1h", metadata={**own, **metadata})
        return wait_instance_running(control, instance.id, timeout=30)

    return started
