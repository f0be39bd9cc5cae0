"""Leases: renewed after each quarter, independently of each other, and only while the holder is current."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime

import pytest

from ags_flows.errors import (
    ConflictError,
    CredentialsError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    SupersededError,
    UnreachableError,
)
from ags_flows.lifecycle import lease as module
from ags_flows.lifecycle.lease import LeaseKeeper, keep_lease
from ags_flows.lifecycle.waiting import wait_instance_running, wait_instance_status
from ags_flows.models import Instance
from ags_flows.ownership import ENDED, HOLDER, Frame, Holder, lease_is_kept

RUN = "0123456789abcdef0123456789abcdef"
RUN_WITH_HYPHENS = "01234567-89ab-cdef-0123-456789abcdef"


def holder(attempt=1, call="c1", *, task=None):
    frames = [Frame("flow", RUN, attempt)]
    if task is not None:
        frames.append(Frame("task", RUN[::-1], task))
    return Holder((*frames, Frame("call", call)))


def wait_until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def threads_named(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


class Cloud:
    """A control plane of instances in memory. `failure` and `refusal` are raised by looks and by updates."""

    def __init__(self, status="RUNNING", metadata=None):
        self.status = status
        self.metadata = metadata or {}
        self.limits = []
        self.looks = []
        self.updates = []
        self.failure = None
        self.refusal = None
        self.during_look = lambda instance_id: None

    def with_timeout(self, seconds):
        self.limits.append(seconds)
        return self

    def get_instance(self, instance_id):
        self.looks.append(instance_id)
        self.during_look(instance_id)
        if self.failure:
            raise self.failure
        if self.status is None:
            raise NotFoundError("unknown")
        return Instance(id=instance_id, tool_id="t", status=self.status, metadata=self.metadata)

    def update_instance(self, instance_id, *, timeout):
        self.updates.append((instance_id, timeout))
        if self.refusal:
            raise self.refusal
        if self.status is None:
            raise NotFoundError("unknown")


class Stage:
    """A keeper whose clock the test moves, and what its callbacks were called with."""

    def __init__(self, emulator=None):
        self.now = 0.0
        self.emulator = emulator
        self.keeper = LeaseKeeper(lambda: self.now)
        self.troubles = []
        self.lost = []

    def keep(self, cloud, seconds=100, mine=None, instance_id="i-1"):
        return self.keeper.keep(
            cloud, instance_id, seconds, mine, on_trouble=self.troubles.append, on_lost=self.lost.append
        )

    def move(self, seconds):
        """Move the clock. Renewals that are due start soon."""
        if self.emulator:
            self.emulator.advance(seconds)
        self.now += seconds
        with self.keeper._changed:
            self.keeper._changed.notify_all()

    def advance(self, seconds, step=None):
        """Move the clock, in steps, and wait after each for the renewals that are due."""
        step = step or seconds
        for _ in range(round(seconds / step)):
            self.move(step)
            wait_until(self.settled)

    def settled(self):
        with self.keeper._changed:
            return not self.keeper._running and all(kept.due > self.now for kept in self.keeper._kept.values())

    def close(self):
        scheduler = self.keeper._thread
        for lease in list(self.keeper._kept):
            lease.release()
        wait_until(lambda: scheduler is None or not scheduler.is_alive())


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def emulated(ags_emulator):
    stage = Stage(ags_emulator)
    yield stage
    stage.close()


@pytest.fixture
def running(control):
    """Start an instance, with a timeout and metadata, and wait until it runs."""

    def start(timeout="40s", metadata=None):
        started = control.start_instance(tool="base", timeout=timeout, metadata=metadata)
        return wait_instance_running(control, started.id, timeout=20)

    return start


# When a lease is renewed


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


# Holders


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
    path = f"(task run fedcba98-7654-3210-fedc-ba9876543210 in flow run {RUN_WITH_HYPHENS})"
    assert path in str(lease.lost)


def test_the_successor_of_an_item_is_named_by_the_item(stage):
    key = "x" * 32
    mine, theirs = (Holder((Frame("flow", RUN), Frame("item", key, number), Frame("call", "c"))) for number in (1, 2))
    lease = stage.keep(Cloud(metadata={HOLDER: str(theirs)}), mine=mine)
    stage.advance(25)
    assert f"(item {key} in flow run {RUN_WITH_HYPHENS})" in str(lease.lost)


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


# Instances that have ended


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


# Paused instances


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


# Failures


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


# Renewals do not wait for one another


@contextmanager
def black_hole(cloud, instance_id):
    """Make looks at one instance wait for the end of the block."""
    over = threading.Event()
    cloud.during_look = lambda looked_at: over.wait(60) if looked_at == instance_id else None
    try:
        yield
    finally:
        over.set()


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


# Threads and processes


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
