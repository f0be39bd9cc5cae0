"""Renewals do not wait for one another, and survive forks, exceptions and the end of their thread."""

import math
import os
import signal
import subprocess
import sys
import threading

import pytest

from ags_flows.errors import InstanceGoneError, UnreachableError
from ags_flows.lifecycle import lease as module
from ags_flows.lifecycle.lease import keep_lease

from .leases import Cloud, black_hole, threads_named, wait_until


def test_a_renewal_without_a_response_does_not_delay_the_others(stage):
    cloud = Cloud()
    stage.keep(cloud, instance_id="silent")
    stage.keep(cloud, instance_id="well")
    with black_hole(cloud, "silent"):
        for number in (1, 2, 3):
            stage.move(25)
            wait_until(lambda number=number: cloud.updates == [("well", 100)] * number)
        assert cloud.looks.count("silent") == 1
    wait_until(lambda: ("silent", 100) in cloud.updates)


def test_a_request_without_a_response_does_not_end_the_other_sandboxes(emulated, control, running):
    silent, well = running("40s"), running("40s")
    emulated.keep(control, 40, instance_id=silent.id)
    emulated.emulator.fault("hang", "DescribeSandboxInstanceList", times=1)
    emulated.move(10)
    wait_until(lambda: emulated.keeper._running == 1)
    lease = emulated.keep(control, 40, instance_id=well.id)
    emulated.move(10)
    wait_until(lambda: emulated.keeper._kept[lease].ends == 60)
    emulated.emulator.clear_faults()
    wait_until(emulated.settled)
    emulated.advance(100, step=10)
    assert lease.lost is None
    assert {control.get_instance(one.id).status for one in (silent, well)} == {"RUNNING"}


def test_no_more_renewals_run_concurrently_than_the_limit(stage, monkeypatch):
    monkeypatch.setattr(module, "MOST_RENEWALS", 3)
    cloud, over = Cloud(), threading.Event()
    cloud.during_look = lambda instance_id: over.wait(60)
    for number in range(8):
        stage.keep(cloud, instance_id=f"i-{number}")
    stage.move(25)
    wait_until(lambda: len(cloud.looks) == 3)
    assert len(threads_named("ags-lease-renewal")) == 3
    over.set()
    wait_until(stage.settled)
    assert sorted(cloud.updates) == [(f"i-{number}", 100) for number in range(8)]


def test_one_scheduler_serves_all_leases_and_no_thread_remains(stage):
    cloud = Cloud()
    wait_until(lambda: not threads_named("ags-leases"))
    leases = [stage.keep(cloud, instance_id=f"i-{number}") for number in range(50)]
    stage.advance(25)
    assert len(cloud.updates) == 50 and len(threads_named("ags-leases")) == 1
    for lease in leases:
        lease.release()
    wait_until(lambda: not threads_named("ags-leases") and not threads_named("ags-lease-renewal"))


def test_the_scheduler_ends_while_a_renewal_of_a_released_lease_is_without_a_response(stage):
    cloud = Cloud()
    lease = stage.keep(cloud)
    with black_hole(cloud, "i-1"):
        stage.move(25)
        wait_until(lambda: cloud.looks)
        scheduler = stage.keeper._thread
        lease.release()
        wait_until(lambda: not scheduler.is_alive())
    wait_until(lambda: not stage.keeper._running)
    assert cloud.updates == []


def test_a_renewal_for_which_no_thread_can_be_started_is_done_by_the_scheduler(stage, monkeypatch):
    cloud = Cloud()
    stage.keep(cloud)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stage.advance(25)
    assert len(cloud.updates) == 1


def test_a_renewal_without_a_response_does_not_delay_the_end_of_the_process():
    code = """
import threading, time
from ags_flows.lifecycle.lease import keep_lease
from ags_flows.models import Instance
class Silent:
    looking = threading.Event()
    def with_timeout(self, seconds): return self
    def get_instance(self, instance_id):
        self.looking.set()
        time.sleep(600)
keep_lease(Silent(), "i", 1, None, on_trouble=print)
assert Silent.looking.wait(20)
print("end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("end\n", "")


def in_child(action):
    """Return what an action returns in a forked child, as text, or `timeout`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os.write(writing, str(action()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode() or "timeout"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_renews_only_its_own_leases():
    cloud = Cloud()
    parent = keep_lease(cloud, "parent", 2, None, on_trouble=print)
    wait_until(lambda: cloud.updates)

    def child():
        cloud.looks.clear()
        cloud.updates.clear()
        parent.release()
        mine = keep_lease(cloud, "child", 1, None, on_trouble=print)
        wait_until(lambda: len(cloud.updates) >= 3)
        mine.release()
        wait_until(lambda: not threads_named("ags-leases"))
        return sorted({instance_id for instance_id, _ in cloud.updates} | set(cloud.looks))

    try:
        assert in_child(child) == "['child']"
        count = len(cloud.updates)
        wait_until(lambda: len(cloud.updates) > count)
    finally:
        parent.release()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_held_at_the_fork_does_not_block_the_child(stub, stubbed):
    cloud = Cloud()
    parent = keep_lease(cloud, "parent", 1000, None, on_trouble=print)
    held, over = threading.Event(), threading.Event()

    def hold():
        with module._keeper._changed, stubbed._transport._lock, type(stubbed)._lock:
            held.set()
            over.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait(10)

    def child():
        parent.release()
        type(stubbed).of(stubbed.connection).quotas()
        stubbed.quotas()
        mine = keep_lease(cloud, "child", 1, None, on_trouble=print)
        wait_until(lambda: cloud.updates)
        mine.release()
        return cloud.updates[0]

    try:
        assert in_child(child) == "('child', 1)"
    finally:
        over.set()
        holding.join()
        parent.release()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scheduler_that_died_is_started_again_by_the_next_lease(stage):
    cloud = Cloud()
    stage.keep(cloud, instance_id="first")
    scheduler, now = stage.keeper._thread, stage.now
    stage.now = "not a number"
    with stage.keeper._changed:
        stage.keeper._changed.notify_all()
    wait_until(lambda: not scheduler.is_alive())
    stage.now = now
    stage.keep(cloud, instance_id="second")
    stage.advance(25)
    assert sorted(cloud.updates) == [("first", 100), ("second", 100)]


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_does_not_end_the_renewals(stage, raised, caplog):
    def broken(value):
        raise raised("from the callback")

    cloud, failing = Cloud(), Cloud()
    failing.failure = UnreachableError("no network")
    stage.keeper.keep(failing, "i-1", 100, None, on_trouble=broken, on_lost=broken)
    stage.keep(cloud, instance_id="other")
    stage.advance(25)
    assert "A callback of the lease of sandbox i-1 failed" in caplog.text
    failing.failure = None
    stage.advance(25)
    assert ("i-1", 100) in failing.updates and len(cloud.updates) == 2


def test_a_lease_is_lost_once_although_the_first_callback_raises(stage):
    def broken(sentence):
        raise ValueError(sentence)

    lease = stage.keeper.keep(Cloud("STOPPED"), "i-1", 100, None, on_trouble=broken, on_lost=stage.lost.append)
    stage.advance(25)
    stage.advance(100)
    assert stage.lost == [lease.lost] and isinstance(lease.lost, InstanceGoneError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_renewal_that_is_interrupted_is_repeated(stage):
    cloud = Cloud()
    cloud.failure = SystemExit("interrupted")
    lease = stage.keep(cloud)
    stage.advance(25)
    cloud.failure = None
    stage.advance(0.5)
    assert len(cloud.updates) == 1 and lease.lost is None
    assert all(kept.due < math.inf for kept in stage.keeper._kept.values())
