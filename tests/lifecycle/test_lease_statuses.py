"""Leases of instances that have ended, and of paused ones."""

import pytest

from ags_flows.errors import ConflictError, InstanceGoneError, InvalidRequestError, NotFoundError, UnreachableError
from ags_flows.lifecycle.waiting import wait_instance_status
from ags_flows.ownership import ENDED

from .leases import Cloud


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_instance_that_has_ended_ends_its_lease(stage, status):
    cloud = Cloud(status)
    lease = stage.keep(cloud)
    stage.advance(25)
    assert isinstance(lease.lost, InstanceGoneError) and status in str(lease.lost)
    assert stage.lost == [lease.lost] and cloud.updates == []
    assert stage.troubles == [str(lease.lost)]


def test_an_instance_that_ags_does_not_know_ends_its_lease(stage):
    lease = stage.keep(Cloud(status=None))
    stage.advance(25)
    assert isinstance(lease.lost, InstanceGoneError) and "does not know" in str(lease.lost)


def test_a_list_that_is_out_of_date_does_not_end_a_lease(stage):
    cloud = Cloud()
    cloud.failure = NotFoundError("not listed yet")
    lease = stage.keep(cloud)
    stage.advance(25)
    assert len(cloud.updates) == 1 and lease.lost is None and stage.troubles == []


@pytest.mark.parametrize("refusal", [ConflictError("no"), InvalidRequestError("no")])
@pytest.mark.parametrize("status", ["STOPPED", None])
def test_a_rejected_update_of_an_instance_that_ended_ends_the_lease_immediately(stage, refusal, status):
    cloud = Cloud()
    cloud.refusal = refusal
    cloud.during_look = lambda instance_id: setattr(cloud, "status", status if len(cloud.looks) > 1 else "RUNNING")
    lease = stage.keep(cloud)
    stage.advance(25)
    assert isinstance(lease.lost, InstanceGoneError) and len(cloud.looks) == 2


def test_a_stopped_sandbox_is_lost_at_the_next_renewal(emulated, control, running):
    instance = running("40s")
    lease = emulated.keep(control, 40, instance_id=instance.id)
    control.stop_instance(instance.id)
    emulated.advance(10)
    assert isinstance(lease.lost, InstanceGoneError) and len(emulated.lost) == 1


def test_a_paused_sandbox_is_renewed_again_after_it_was_resumed(emulated, control, running):
    instance = running("40s")
    lease = emulated.keep(control, 40, instance_id=instance.id)
    control.pause_instance(instance.id)
    wait_instance_status(control, instance.id, goal="PAUSED", timeout=20)
    emulated.advance(100, step=5)
    assert lease.lost is None
    control.resume_instance(instance.id, timeout="40s")
    wait_instance_status(control, instance.id, goal="RUNNING", timeout=20)
    emulated.advance(100, step=5)
    assert control.get_instance(instance.id).status == "RUNNING"
    assert lease.lost is None and emulated.troubles == emulated.lost == []


@pytest.mark.parametrize("status", ["PAUSING", "PAUSED", "RESUMING", "STARTING"])
def test_checks_of_an_instance_that_is_paused_or_in_transition_are_not_reported(stage, status):
    cloud = Cloud(status)
    stage.keep(cloud, 900)
    stage.advance(225)
    stage.advance(3000, step=15)
    assert len(cloud.looks) == 201 and cloud.updates == []
    cloud.status = "RUNNING"
    stage.advance(15)
    assert len(cloud.updates) == 1
    stage.advance(224)
    assert len(cloud.updates) == 1 and stage.troubles == stage.lost == []


def test_a_pause_between_look_and_update_is_not_a_failure(stage):
    cloud = Cloud()
    cloud.refusal = ConflictError("not RUNNING")
    cloud.during_look = lambda instance_id: setattr(cloud, "status", "PAUSED" if len(cloud.looks) > 1 else "RUNNING")
    lease = stage.keep(cloud)
    stage.advance(25)
    assert lease.lost is None and stage.troubles == [] and len(cloud.looks) == 2


def test_a_rejected_update_of_a_running_instance_is_a_failure(stage):
    cloud = Cloud()
    cloud.refusal = ConflictError("not now")
    lease = stage.keep(cloud)
    stage.advance(25)
    assert lease.lost is None and "not now" in stage.troubles[0]


def test_a_paused_sandbox_that_cannot_be_checked_is_not_lost_and_is_reported_once(stage):
    cloud = Cloud("PAUSED")
    lease = stage.keep(cloud)
    stage.advance(25)
    cloud.failure = UnreachableError("no network")
    stage.advance(600, step=15)
    assert lease.lost is None
    assert stage.troubles == ["Paused sandbox i-1 could not be checked; retrying. Error: no network"]


def test_a_resumed_sandbox_has_a_whole_lease_for_its_renewal(stage):
    cloud = Cloud("PAUSED")
    lease = stage.keep(cloud)
    stage.advance(25)
    stage.advance(300, step=15)
    cloud.status, cloud.refusal = "RUNNING", UnreachableError("no network")
    stage.advance(15)
    assert "ends in 100 s" in stage.troubles[0] and lease.lost is None
