"""Attempts at batches: each one is simulated in this process."""

import importlib
import uuid

import pytest
from prefect.exceptions import TerminationSignal

from ags_flows.batch import runner as runners
from ags_flows.errors import UnreachableError
from ags_flows.flows.batch_progress import ShardObserver
from ags_flows.lifecycle import open_sandbox
from ags_flows.ownership import LIVE, Frame, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.run.outcome import ending_of

MODULE = importlib.import_module("ags_flows.flows.run_items")


@pytest.fixture
def attempt():
    """Return a function: `with attempt(2):` makes the batches of the block those of the second attempt of one run."""
    root = uuid.uuid4().hex
    return lambda number: acting_as(Execution(frames=(Frame("flow", root, number),), owner=Owner("run-1")))


@pytest.fixture
def take_overs_fail(monkeypatch):
    """Return a function that makes so many take-overs of sandboxes fail for now."""

    def arrange(times):
        failures, take_over = [UnreachableError("away")] * times, open_sandbox.take_over

        def failing(*arguments):
            if failures:
                raise failures.pop()
            return take_over(*arguments)

        monkeypatch.setattr(open_sandbox, "take_over", failing)
        monkeypatch.setattr(runners, "FIRST_PAUSE", 0.05)

    return arrange


@pytest.fixture
def dies(monkeypatch):
    """Return a function that makes the next batch die when a condition holds for its runner."""
    watches = {observer: observer.watch for observer in (MODULE.Observer, ShardObserver)}

    def arrange(condition, error=None, ending="crashed"):
        def killed(self, runner):
            while not condition(runner):
                assert not runner.wait(0.02), "the batch was over too soon"
            for observer, watch in watches.items():
                monkeypatch.setattr(observer, "watch", watch)
            raise error or TerminationSignal(signal=15)

        for observer in watches:
            monkeypatch.setattr(observer, "watch", killed)
        # Outside of a flow run a SIGTERM counts as a cancellation, since nothing retries it.
        deaths = (TerminationSignal,)
        monkeypatch.setattr(
            "ags_flows.run.interruption.ending_of",
            lambda found, *more, **options: ending if isinstance(found, deaths) else ending_of(found, *more, **options),
        )

    return arrange


@pytest.fixture
def live(ags_config):
    return lambda: [one for one in ags_config.control_plane().list_instances() if one.status in LIVE]
