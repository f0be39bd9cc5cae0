"""Sandboxes that look as if flows had started them, and owners that say what a test wants."""

from datetime import datetime, timezone

import pytest

from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.ownership import Identity, Owner, label
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

    def started(run, **metadata):
        owner = Owner(run, flow_run_name=f"name-{run}", flow_id="f" * 8)
        own = label(Identity(run, "start", "p"), owner, datetime.now(timezone.utc))
        instance = control.start_instance(tool="base", timeout="1h", metadata={**own, **metadata})
        return wait_instance_running(control, instance.id, timeout=30)

    return started
