"""The lease: renewed at half of its life, shouted about before it ends, and never a reason to keep a process."""

import subprocess
import sys
import threading
import time

import pytest

from ags_flows.errors import InstanceGoneError, UnreachableError
from ags_flows.lifecycle.lease import LeaseKeeper, keep_lease
from ags_flows.lifecycle.waiting import wait_instance_running


class Renewals:
    """Counts renewals; fails with an error while there is one."""

    def __init__(self):
        self.times = []
        self.error = None
        self.troubles = []

    def __call__(self):
        self.times.append(time.monotonic())
        if self.error:
            raise self.error


@pytest.fixture
def renewals():
    return Renewals()


def lease_threads():
    return [thread for thread in threading.enumerate() if thread.name == "ags-leases"]


def wait_until(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_is_renewed_at_half_of_its_life(renewals):
    began = time.monotonic()
    lease = LeaseKeeper().keep("i", 0.6, renewals, renewals.troubles.append)
    wait_until(lambda: len(renewals.times) == 3)
    lease.release()
    first, second, third = (moment - began for moment in renewals.times)
    assert 0.25 < first < 0.55 < second < 0.85 < third
    assert renewals.troubles == []


def test_after_the_release_nothing_is_renewed_and_the_thread_ends(renewals):
    lease = LeaseKeeper().keep("i", 0.2, renewals, renewals.troubles.append)
    wait_until(lambda: renewals.times)
    lease.release()
    time.sleep(0.3)
    count = len(renewals.times)
    wait_until(lambda: not lease_threads())
    assert len(renewals.times) == count


def test_one_thread_keeps_all_leases(renewals):
    keeper = LeaseKeeper()
    leases = [keeper.keep(str(number), 0.4, renewals, renewals.troubles.append) for number in range(50)]
    wait_until(lambda: len(renewals.times) >= 50)
    assert len(lease_threads()) == 1
    for lease in leases:
        lease.release()


def test_a_failed_renewal_is_tried_again_and_told_before_the_lease_ends(renewals):
    renewals.error = UnreachableError("no network")
    lease = LeaseKeeper().keep("i-1", 4.0, renewals, renewals.troubles.append)
    wait_until(lambda: len(renewals.times) >= 2)
    assert "i-1 could not be renewed and ends in" in renewals.troubles[0]
    assert "no network" in renewals.troubles[0]
    renewals.error = None
    wait_until(lambda: lease.failures == 0)
    lease.release()
    assert not lease.gone


def test_a_lease_that_is_over_is_told_and_given_up(renewals):
    renewals.error = UnreachableError("no network")
    lease = LeaseKeeper().keep("i-1", 1.0, renewals, renewals.troubles.append)
    wait_until(lambda: lease.gone)
    assert "is over" in renewals.troubles[-1]


def test_an_instance_that_has_ended_ends_its_lease(renewals):
    renewals.error = InstanceGoneError("stopped")
    lease = LeaseKeeper().keep("i-1", 0.2, renewals, renewals.troubles.append)
    wait_until(lambda: lease.gone)
    assert "has ended" in renewals.troubles[0]


def test_a_lease_does_not_keep_a_process_from_ending():
    code = "from ags_flows.lifecycle.lease import keep_lease; keep_lease('i', 60, lambda: None, print); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "end\n"


@pytest.mark.usefixtures("ags_emulator")
def test_a_live_owner_keeps_a_sandbox_beyond_its_timeout_and_a_dead_one_does_not(ags_emulator, ags_config):
    control = ags_config.control_plane()
    kept, left = (control.start_instance(tool="base", timeout="30s") for _ in range(2))
    wait_instance_running(control, kept.id, timeout=20)
    wait_instance_running(control, left.id, timeout=20)
    for _ in range(4):
        # A keeper would come by at half of the time; its clock is the machine's, the emulator's is moved here.
        ags_emulator.advance(16)
        control.update_instance(kept.id, timeout="30s")
    status = {instance.id: instance.status for instance in control.list_instances()}
    assert status[kept.id] == "RUNNING"
    assert status[left.id] in ("STOPPING", "STOPPED")
    lease = keep_lease(kept.id, 60, lambda: control.update_instance(kept.id, timeout="60s"), print)
    lease.release()
