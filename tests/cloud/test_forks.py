"""Locks of modules in forked child processes."""

import os
import threading

import pytest

from ags_flows.cloud.forks import ModuleLock


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child_and_held_in_the_parent():
    lock = ModuleLock()
    held, over = threading.Event(), threading.Event()

    def hold():
        with lock, lock:
            held.set()
            over.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(10)
    child = os.fork()
    if child == 0:
        # Without a time limit a child that waits for the lock would wait for ever.
        threading.Timer(10, os._exit, (1,)).start()
        with lock, lock:
            os._exit(0)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not lock._lock.acquire(blocking=False)
    finally:
        over.set()
        holding.join()
    with lock:
        pass
