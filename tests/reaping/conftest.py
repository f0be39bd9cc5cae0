"""Sandboxes that look as if flows had started them, and owners whose answers a test sets."""

from datetime import datetime, timezone

import pytest

from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.ownership import Frame, Holder, Owner, Place, Step, label
from ags_flows.reaping.owners import Owned


class SaidOwners:
    """Answers from a mapping; asks are counted, and answers can change in between."""

    def __init__(self, said):
        self.said = said
        self.asked = 0
        self.before = {}

    def look_up(self, runs):
        self.asked += 1
        if change := self.before.pop(self.asked, None):
            change()
        return {run: self.said.get(run, Owned("foreign")) for run in runs}


@pytest.fixture
def start(ags_config):
    """Return a function that starts a sandbox of a flow run."""
    control = ags_config.control_plane()

    def started(*path, lease=None, **metadata):
        """Start a sandbox of the last one of some flow runs, nested in each other."""
        owner = Owner(path[0], flow_run_name=f"name-{path[0]}", flow_id="f" * 8)
        frames = [Frame("flow", run) for run in path]
        step = Step("start", "p", path[0], Place(), Holder((*frames, Frame("call", "c"))))
        own = label(step, owner, datetime.now(timezone.utc), lease)
        instance = control.start_instance(tool="base", timeout="1h", metadata={**own, **metadata})
        return wait_instance_running(control, instance.id, timeout=30)

    return started
