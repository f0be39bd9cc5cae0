"""Sandboxes that start from snapshots of other sandboxes of the run."""

import pytest
from prefect import flow

from ags_flows import sandbox_session

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_snapshot_has_no_claims_of_the_sandbox_that_was_copied(ags_config, killed_session):
    """The journals are files, and the sandbox that starts from a snapshot has them too."""
    snapshots = []

    def work(sandbox):
        sandbox.run("echo one >> log")
        snapshots.append(sandbox.snapshot("copied"))

    @flow(retries=1)
    def copying():
        killed_session(work=work)
        if len(snapshots) == 1:
            raise RuntimeError("killed")
        with sandbox_session(snapshot_id=snapshots[0].id, config=ags_config) as copy:
            copy.run("echo one >> log")
            return copy.run("cat log").stdout.split()

    assert copying() == ["one", "one"]


def test_a_sandbox_from_a_snapshot_of_another_run_is_taken_over(ags_config, killed_session):
    """The copy has the claim of the sandbox that was copied, which another run has."""
    snapshots, used = [], []

    @flow(retries=1)
    def making():
        sandbox = killed_session(work=lambda sandbox: sandbox.run("echo made"))
        used.append(sandbox.instance.id)
        if len(used) == 1:
            raise RuntimeError("killed")
        snapshots.append(sandbox.snapshot("of-another-run"))

    @flow(retries=1)
    def using():
        sandbox = killed_session(
            tool=None, snapshot_id=snapshots[0].id, work=lambda sandbox: sandbox.run("echo x >> ran")
        )
        used.append(sandbox.instance.id)
        if len(used) == 3:
            raise RuntimeError("killed")
        return sandbox.run("cat ran").stdout.split()

    making()
    assert using() == ["x"]
    assert used[0] == used[1] and used[2] == used[3]
