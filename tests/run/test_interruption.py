"""Blocks in pooled threads are interrupted when the server reports that their flow run is being cancelled."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal

from ags_flows.run import interruption
from ags_flows.run.interruption import Interruptions, interruptible
from ags_flows.run.outcome import enclosing_run
from ags_flows.run.prefect_contexts import TimeLimit
from ags_flows.run.signals import signal_in_main_thread


class Server:
    """Knows which runs are cancelled, and what the main thread handles; every look is counted."""

    signal = None

    def __init__(self):
        self.cancelled = set()
        self.timed_out = {}
        self.looks = 0
        self.broken = 0
        self.looked = threading.Condition()

    def is_cancelled(self, run):
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
            if self.broken:
                self.broken -= 1
                raise ConnectionError("no response")
        return run in self.cancelled

    def is_timed_out(self, run):
        if run not in self.timed_out:
            raise ConnectionError("no response")
        return self.timed_out[run]

    def signal_in_main_thread(self):
        return self.signal

    def ending_of(self, signal, run):
        return "crashed" if run else "cancelled"

    def wait_for_looks(self, count):
        with self.looked:
            assert self.looked.wait_for(lambda: self.looks >= count, 60)


def interruptions_of(server, **intervals):
    return Interruptions(
        **intervals,
        is_cancelled=server.is_cancelled,
        is_timed_out=server.is_timed_out,
        signal=lambda: server.signal_in_main_thread(),
        ending_by_signal=server.ending_of,
    )


def enter(interruptions, run):
    """Enter a block in another thread. Returns the thread, the flag that wakes it, and the list of its ending."""
    woken, entered, endings = threading.Event(), threading.Event(), []

    def work():
        with interruptions.interruptible(woken.set, run) as block:
            entered.set()
            assert woken.wait(60)
        endings.append(block.ending)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(60)
    return thread, woken, endings


def leave(thread, woken, endings):
    woken.set()
    thread.join(60)
    return endings


def test_a_block_of_a_cancelled_run_is_interrupted_and_no_other():
    server = Server()
    interruptions = interruptions_of(server, look_every=0.01)
    mine, other, outside = uuid4(), uuid4(), None
    blocks = {run: enter(interruptions, run) for run in (mine, other, outside)}
    server.wait_for_looks(4)
    server.cancelled.add(mine)
    blocks[mine][0].join(60)
    assert blocks[mine][2] == ["cancelled"]
    assert not blocks[other][1].is_set() and not blocks[outside][1].is_set()
    assert leave(*blocks[other]) == leave(*blocks[outside]) == [None]


def test_a_server_that_does_not_respond_is_asked_again():
    server = Server()
    server.broken = 3
    run = uuid4()
    server.cancelled.add(run)
    thread, _, endings = enter(interruptions_of(server, look_every=0.01), run)
    thread.join(60)
    assert endings == ["cancelled"]
    assert server.looks == 4


def test_the_watcher_ends_with_the_last_block_and_starts_with_the_next():
    server = Server()
    interruptions = interruptions_of(server, look_every=0.01)
    for _ in range(2):
        block = enter(interruptions, uuid4())
        server.wait_for_looks(server.looks + 1)
        watcher = interruptions._watcher
        assert leave(*block) == [None]
        watcher.join(60)
        assert not watcher.is_alive()


def test_a_block_in_the_main_thread_is_not_watched():
    server = Server()
    interruptions = interruptions_of(server, look_every=0.01)
    with interruptions.interruptible(lambda: None, uuid4()):
        assert interruptions._watcher is None


def test_a_signal_that_the_main_thread_goes_on_handling_interrupts_the_blocks_of_the_others():
    server = Server()
    interruptions = interruptions_of(server, look_every=60, tick=0.01)
    server.signal = KeyboardInterrupt()
    of_run, alone = enter(interruptions, uuid4()), enter(interruptions, None)
    for thread, _, _ in (of_run, alone):
        thread.join(60)
    assert (of_run[2], alone[2]) == (["crashed"], ["cancelled"])


def test_a_block_that_is_opened_while_the_process_ends_is_interrupted_immediately():
    server = Server()
    interruptions = interruptions_of(server, look_every=60, tick=0.01)
    server.signal = KeyboardInterrupt()
    first = enter(interruptions, None)
    first[0].join(60)
    for expected in (["cancelled"], [None]):
        thread, woken, endings = enter(interruptions, None)
        assert woken.is_set() == (expected == ["cancelled"])
        # The program goes on.
        server.signal = None
        assert leave(thread, woken, endings) == expected


def test_signals_that_the_main_thread_has_handled_interrupt_nothing():
    server, looks = Server(), threading.Semaphore(0)

    def another_one():
        looks.release()
        return KeyboardInterrupt()

    server.signal_in_main_thread = another_one
    block = enter(interruptions_of(server, look_every=60, tick=0.01), None)
    for _ in range(5):
        assert looks.acquire(timeout=60)
    assert leave(*block) == [None]


def test_a_server_that_responds_late_delays_no_interruption_by_a_signal():
    server, responds = Server(), threading.Event()
    server.is_cancelled = lambda run: responds.wait(60) and False
    interruptions = interruptions_of(server, look_every=0.01)
    run = uuid4()
    thread, _, endings = enter(interruptions, run)
    server.signal = KeyboardInterrupt()
    thread.join(30)
    assert endings == ["crashed"]
    responds.set()


def limit_of(run, seconds=0.0, *, elsewhere):
    context = SimpleNamespace(_token="within")
    return TimeLimit(context, seconds, time.monotonic() + seconds, run, elsewhere)


def test_a_time_limit_of_a_run_in_another_process_counts_if_the_run_had_not_ended_before(monkeypatch):
    server, timed_out, ended = Server(), uuid4(), uuid4()
    interruptions = interruptions_of(server, look_every=0.01)
    blocks = {}
    for run in (timed_out, ended):
        limits = (limit_of(run, elsewhere=True),)
        monkeypatch.setattr(interruption, "time_limits_of_flows", lambda limits=limits: limits)
        blocks[run] = enter(interruptions, uuid4())
    # While the server does not respond, nothing is known.
    server.wait_for_looks(4)
    assert not any(woken.is_set() for _, woken, _ in blocks.values())
    server.timed_out = {timed_out: True, ended: False}
    blocks[timed_out][0].join(60)
    assert blocks[timed_out][2] == ["failed"]
    server.wait_for_looks(server.looks + 4)
    assert leave(*blocks[ended]) == [None]


def test_a_block_that_is_entered_after_a_time_limit_is_interrupted_immediately(monkeypatch):
    server, run = Server(), uuid4()
    server.timed_out = {run: True}
    monkeypatch.setattr(interruption, "is_elsewhere", lambda: True)
    for elsewhere in (True, False):
        limits = (limit_of(run, elsewhere=elsewhere),)
        monkeypatch.setattr(interruption, "time_limits_of_flows", lambda limits=limits: limits)
        thread, woken, endings = enter(interruptions_of(server, look_every=60, tick=60), run)
        assert woken.is_set()
        thread.join(60)
        assert endings == ["failed"]


def test_the_server_is_asked_once_a_look_about_each_run():
    server, run = Server(), uuid4()
    interruptions = interruptions_of(server, look_every=60)
    blocks = [enter(interruptions, run) for _ in range(20)]
    interruptions._interrupt_by_server(interruptions._open)
    assert server.looks == 1
    assert [leave(*block) for block in blocks] == [[None]] * 20


def test_the_same_signal_is_found_again_after_the_program_went_on():
    server = Server()
    # asyncio's count of Ctrl-C is one object.
    server.signal = counted = KeyboardInterrupt()
    interruptions = interruptions_of(server, look_every=60, tick=0.01)
    interrupted, other = enter(interruptions, None), enter(interruptions, None)
    for block in (interrupted, other):
        block[0].join(60)
    server.signal = None
    later = enter(interruptions, None)
    assert not later[1].is_set()
    server.signal = counted
    later[0].join(60)
    assert later[2] == ["cancelled"]


def test_a_signal_is_found_while_the_main_thread_waits_for_others():
    found = []

    def look():
        found.append(signal_in_main_thread())

    class Waits:
        def __enter__(self):
            return self

        def __exit__(self, *exc_info):
            other = threading.Thread(target=look)
            other.start()
            other.join()

    for error in (KeyboardInterrupt(), TerminationSignal(signal=15), ValueError()):
        with pytest.raises(type(error)), Waits():
            raise error
    assert [type(one) for one in found] == [KeyboardInterrupt, TerminationSignal, type(None)]
    look()
    assert found[-1] is None


ENDED = """
import sys, threading, time
from ags_flows.run.signals import signal_in_main_thread

def look():
    main = threading.main_thread()
    while "_shutdown" not in {frame.f_code.co_name for frame in frames(sys._current_frames()[main.ident])}:
        time.sleep(0.01)
    print(type(signal_in_main_thread()).__name__)

def frames(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back

threading.Thread(target=look).start()
"""


@pytest.mark.parametrize(
    ("end", "found"),
    [("raise KeyboardInterrupt", "KeyboardInterrupt"), ("raise ValueError", "NoneType"), ("", "NoneType")],
)
def test_a_signal_is_found_that_has_ended_the_main_thread_while_others_go_on(end, found):
    done = subprocess.run([sys.executable, "-c", ENDED + end], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [found], done.stderr


def test_a_block_that_cannot_be_woken_does_not_keep_the_others_from_it(caplog):
    interruptions = interruptions_of(Server(), look_every=60)

    def fail():
        raise RuntimeError("cannot be woken")

    entered, left = threading.Event(), threading.Event()

    def work():
        with interruptions.interruptible(fail, None):
            entered.set()
            left.wait(60)

    broken = threading.Thread(target=work, daemon=True)
    broken.start()
    assert entered.wait(60)
    thread, _, endings = enter(interruptions, None)
    interruptions.interrupt_other_threads("crashed")
    thread.join(60)
    assert endings == ["crashed"]
    assert "could not be interrupted" in caplog.text
    left.set()
    broken.join(60)


def test_only_the_main_thread_interrupts_the_others():
    interruptions = interruptions_of(Server(), look_every=60)
    block = enter(interruptions, None)
    caller = threading.Thread(target=interruptions.interrupt_other_threads, args=("cancelled",))
    caller.start()
    caller.join(60)
    assert not block[1].is_set()
    assert leave(*block) == [None]


def test_a_forked_process_has_no_blocks():
    interruptions = interruptions_of(Server(), look_every=0.01)
    block = enter(interruptions, uuid4())
    interruptions.forget()
    interruptions.interrupt_other_threads("crashed")
    assert not block[1].is_set()
    block[1].set()
    block[0].join(60)
    assert block[2] == [None]


@pytest.mark.usefixtures("prefect_server")
def test_a_mapped_task_is_interrupted_when_its_flow_run_is_cancelled(monkeypatch):
    """The main thread waits for the tasks: it has no session that could interrupt theirs."""
    monkeypatch.setattr(interruption._interruptions, "_look_every", 0.05)
    entered = threading.Barrier(3)

    @task
    def measure(name):
        woken = threading.Event()
        with interruptible(woken.set, enclosing_run()) as block:
            entered.wait(60)
            assert woken.wait(60)
        return name, block.ending

    @flow
    def nightly():
        measured = measure.map(["pears", "plums"])
        entered.wait(60)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(enclosing_run(), State(type=StateType.CANCELLING), force=True)
        return measured.result()

    assert nightly() == [("pears", "cancelled"), ("plums", "cancelled")]
