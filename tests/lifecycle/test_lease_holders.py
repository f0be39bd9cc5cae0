"""A lease is renewed only while its holder is current."""

import pytest

from ags_flows.errors import SupersededError
from ags_flows.ownership import HOLDER, Frame, Holder

from .leases import RUN, RUN_WITH_HYPHENS, Cloud, holder


def test_the_lease_of_a_superseded_attempt_is_lost_with_the_successor_in_the_error(stage):
    cloud = Cloud(metadata={HOLDER: str(holder(2)), "owner-host": "worker-2", "owner-pid": "4711"})
    lease = stage.keep(cloud, mine=holder(1))
    stage.advance(25)
    assert cloud.updates == []
    assert isinstance(lease.lost, SupersededError)
    text = f"A later attempt (flow run {RUN_WITH_HYPHENS}; process 4711 on host worker-2) has taken over"
    assert text in str(lease.lost)
    assert stage.lost == [lease.lost] and stage.troubles == [str(lease.lost)]
    stage.advance(1000)
    assert len(cloud.looks) == 1 and len(stage.lost) == 1


def test_the_successor_of_a_task_retry_is_named_by_task_run_and_flow_run(stage):
    cloud = Cloud(metadata={HOLDER: str(holder(task=3))})
    lease = stage.keep(cloud, mine=holder(task=2))
    stage.advance(25)
    path = f"(attempt 3 of task run fedcba98-7654-3210-fedc-ba9876543210 in flow run {RUN_WITH_HYPHENS})"
    assert path in str(lease.lost)


def test_the_successor_of_an_item_is_named_by_the_item(stage):
    key = "x" * 32
    mine, theirs = (Holder((Frame("flow", RUN), Frame("item", key, number), Frame("call", "c"))) for number in (1, 2))
    lease = stage.keep(Cloud(metadata={HOLDER: str(theirs)}), mine=mine)
    stage.advance(25)
    assert f"(attempt 2 of item {key} in flow run {RUN_WITH_HYPHENS})" in str(lease.lost)


def test_a_superseded_attempt_loses_its_lease_although_the_sandbox_has_ended(stage):
    lease = stage.keep(Cloud("STOPPED", {HOLDER: str(holder(2))}), mine=holder(1))
    stage.advance(25)
    assert isinstance(lease.lost, SupersededError)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (holder(1), str(holder(1))),
        (holder(2), str(holder(1))),
        (holder(1), str(holder(1, "other"))),
        (holder(1), ""),
        (holder(1), "damaged"),
        (None, str(holder(2))),
    ],
    ids=["same", "superseded", "sibling", "no holder", "damaged", "caller without holder"],
)
def test_a_holder_that_is_not_stale_renews(stage, mine, theirs):
    cloud = Cloud(metadata={HOLDER: theirs})
    lease = stage.keep(cloud, mine=mine)
    stage.advance(25)
    assert len(cloud.updates) == 1 and lease.lost is None


def test_an_attempt_loses_its_lease_when_its_retry_takes_over_the_sandbox(emulated, control, running):
    instance = running("40s", {HOLDER: str(holder(1))})
    first = emulated.keep(control, 40, holder(1), instance.id)
    emulated.advance(10)
    control.update_instance(instance.id, metadata={HOLDER: str(holder(2)), "owner-host": "w", "owner-pid": "1"})
    second = emulated.keep(control, 40, holder(2), instance.id)
    emulated.advance(10)
    assert isinstance(first.lost, SupersededError) and emulated.lost == [first.lost]
    emulated.advance(80, step=10)
    assert control.get_instance(instance.id).status == "RUNNING" and second.lost is None
