"""When a lease is renewed, and when it is lost because renewals fail."""

from datetime import datetime

import pytest

from ags_flows.errors import CredentialsError, InstanceGoneError, UnreachableError
from ags_flows.ownership import lease_is_kept

from .leases import Cloud


def test_a_lease_is_renewed_after_each_quarter(stage):
    cloud = Cloud()
    stage.keep(cloud, 100)
    stage.advance(24)
    assert cloud.updates == []
    stage.advance(1)
    assert cloud.updates == [("i-1", 100)]
    stage.advance(24)
    assert len(cloud.updates) == 1
    stage.advance(1)
    assert len(cloud.updates) == 2
    assert stage.troubles == stage.lost == []


def test_at_least_three_quarters_of_a_lease_remain_at_any_time(emulated, control, running):
    instance = running("40s")
    emulated.keep(control, 40, instance_id=instance.id)
    for _ in range(20):
        emulated.advance(5)
        known = control.get_instance(instance.id)
        now = datetime.fromisoformat(emulated.emulator.overview()["time"].replace("Z", "+00:00"))
        # The reaper reads the lease in the same way: this sandbox has an owner.
        assert lease_is_kept({"lease": "40"}, known.expires_at, now)


def test_a_renewed_sandbox_outlives_its_timeout_and_another_one_does_not(emulated, control, running):
    kept, other = running("40s"), running("40s")
    lease = emulated.keep(control, 40, instance_id=kept.id)
    emulated.advance(120, step=10)
    status = {instance.id: instance.status for instance in control.list_instances()}
    assert status[kept.id] == "RUNNING"
    assert status[other.id] in ("STOPPING", "STOPPED")
    assert lease.lost is None and emulated.troubles == []


def test_a_released_lease_is_not_renewed(stage):
    cloud = Cloud()
    lease = stage.keep(cloud)
    lease.release()
    lease.release()
    stage.advance(1000)
    assert cloud.looks == [] and lease.lost is None


def test_a_lease_that_is_released_during_its_renewal_is_not_renewed_and_reports_nothing(stage):
    cloud = Cloud()
    lease = stage.keep(cloud)
    cloud.during_look = lambda instance_id: lease.release()
    stage.advance(25)
    assert (cloud.looks, cloud.updates) == (["i-1"], [])
    failing = Cloud()
    failing.failure = UnreachableError("no network")
    other = stage.keep(failing)
    failing.during_look = lambda instance_id: other.release()
    stage.advance(25)
    assert stage.troubles == stage.lost == [] and other.lost is None


def test_a_failed_renewal_is_retried_after_a_tenth_of_the_time_that_is_left(stage):
    cloud = Cloud()
    cloud.failure = UnreachableError("no network")
    lease = stage.keep(cloud, 100)
    stage.advance(25)
    assert stage.troubles == [
        "The lease of sandbox i-1 could not be renewed and ends in 75 s; retrying. Error: no network"
    ]
    stage.advance(7)
    assert len(cloud.looks) == 1
    stage.advance(0.5)
    assert len(cloud.looks) == 2 and "ends in 68 s" in stage.troubles[1]
    cloud.failure = None
    stage.advance(7)
    assert len(cloud.updates) == 1
    stage.advance(24)
    assert len(cloud.updates) == 1
    stage.advance(1)
    assert len(cloud.updates) == 2 and lease.lost is None and len(stage.troubles) == 2


@pytest.mark.parametrize(
    "failure", [UnreachableError("broken"), CredentialsError("broken"), ZeroDivisionError("broken")]
)
def test_a_lease_that_could_not_be_renewed_in_time_is_lost(stage, failure):
    cloud = Cloud()
    cloud.failure = failure
    lease = stage.keep(cloud, 100)
    stage.advance(100, step=0.5)
    assert isinstance(lease.lost, InstanceGoneError)
    assert "ended after" in str(lease.lost) and "broken" in str(lease.lost)
    assert stage.lost == [lease.lost] and stage.troubles[-1] == str(lease.lost)
    looks = len(cloud.looks)
    assert looks < 60
    stage.advance(100)
    assert len(cloud.looks) == looks


@pytest.mark.parametrize(("seconds", "limit"), [(2, 0.5), (30, 3.0), (60, 6.0), (900, 10.0), (86400, 10.0)])
def test_requests_of_renewals_have_a_time_limit_of_a_tenth_of_the_lease(stage, seconds, limit):
    cloud = Cloud()
    stage.keep(cloud, seconds)
    assert cloud.limits == [limit]
