"""A keeper of leases whose clock the test moves, and a control plane in memory."""

import threading
import time
from contextlib import contextmanager

from ags_flows.errors import NotFoundError
from ags_flows.lifecycle.lease import LeaseKeeper
from ags_flows.models import Instance
from ags_flows.ownership import Frame, Holder

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


@contextmanager
def black_hole(cloud, instance_id):
    """Make looks at one instance wait for the end of the block."""
    over = threading.Event()
    cloud.during_look = lambda looked_at: over.wait(60) if looked_at == instance_id else None
    try:
        yield
    finally:
        over.set()
