"""How many items a sandbox gets in one request."""

import pytest

from ags_flows.batch.bundles import Bundles
from ags_flows.batch.work import Work
from ags_flows.run.holder import Execution


@pytest.fixture
def bundles():
    """Return a function that gives the bundles of a batch whose items take some seconds."""

    def make(*seconds, together=64):
        work = Work(command="true")
        made = Bundles(work, work.queued, Execution().rooted(), sandboxes=4)
        for one in seconds:
            made._learn(one, together)
        return made

    return make


def test_the_first_request_has_one_item_and_later_ones_grow(bundles):
    assert bundles().size(1000) == 1
    assert bundles(0.001, together=1).size(1000) == 8
    assert bundles(0.001, together=8).size(1000) == 64


@pytest.mark.parametrize(("seconds", "size"), [(0.001, 64), (0.02, 50), (0.3, 3), (0.6, 1), (1.5, 1), (3600, 1)])
def test_a_request_has_as_many_items_as_take_a_second(bundles, seconds, size):
    assert bundles(seconds).size(1000) == size


def test_the_last_items_are_shared_by_all_sandboxes(bundles):
    assert bundles(0.1).size(20) == 5
    # Very short ones are not worth more requests.
    assert bundles(0.02).size(20) == 15


def test_only_commands_with_a_journal_are_handed_over_many_at_a_time():
    assert Work(command="true").queued is not None
    assert Work(command="true", options={"durable": False}).queued is None
    assert Work(command="true", options={"limit": 5}).queued is None
    assert Work(function=print).queued is None
