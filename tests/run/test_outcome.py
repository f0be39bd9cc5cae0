"""How a block ends, by the exception that it is left by and by the states on the Prefect server."""

import asyncio
import gc
import os
import signal
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
from prefect.context import FlowRunContext
from prefect.exceptions import Pause, TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings
from prefect.states import AwaitingRetry, Completed, Failed, Running

from ags_flows.errors import AGSFlowsError, SupersededError
from ags_flows.run import outcome
from ags_flows.run.interruption import interruptible
from ags_flows.run.outcome import enclosing_run, ending_of, is_timed_out

# Prefect leaves sockets of async flows to the garbage collector.
LEAKY = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
TERMINATED = TerminationSignal(signal.SIGTERM)
DEATHS = [TERMINATED, asyncio.CancelledError()]


def set_state(run_id, kind):
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, State(type=kind), force=True)


def here(error, kind=None, at=None):
    """Return how a block of the present flow run ends, after a state was set from outside."""
    if kind is not None:
        set_state(at or FlowRunContext.get().flow_run.id, kind)
    return ending_of(error)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, "completed"),
        (ValueError(), "failed"),
        (AGSFlowsError("no"), "failed"),
        (SystemExit(1), "failed"),
        (SupersededError("a later attempt"), "superseded"),
        (Pause(), "suspended"),
        (KeyboardInterrupt(), "cancelled"),
        (TERMINATED, "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
def test_outside_of_runs_nothing_is_left_to_a_later_attempt(error, ending):
    assert ending_of(error) == ending


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("error", DEATHS, ids=repr)
def test_in_a_task_without_a_flow_nothing_is_left_to_a_later_attempt(error):
    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):
        assert task(here)(error) == "cancelled"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("error", DEATHS, ids=repr)
@pytest.mark.parametrize(("kind", "ending"), [(None, "crashed"), (StateType.CANCELLING, "cancelled")])
def test_a_sync_flow_is_cancelled_only_if_the_server_has_a_cancellation(error, kind, ending):
    assert flow(here)(error, kind) == ending


@LEAKY
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("kind", "ending"), [(None, "crashed"), (StateType.CANCELLING, "cancelled")])
def test_an_async_flow_is_cancelled_only_if_the_server_has_a_cancellation(kind, ending):
    @flow
    async def nightly():
        return here(asyncio.CancelledError(), kind)

    assert asyncio.run(nightly()) == ending
    gc.collect()


@pytest.mark.usefixtures("prefect_server")
def test_a_task_of_a_flow_asks_for_its_flow_run():
    @flow
    def nightly():
        before = task(here).submit(TERMINATED).result()
        return before, task(here).submit(TERMINATED, StateType.CANCELLING).result()

    assert nightly() == ("crashed", "cancelled")


def nested(*levels):
    """Return a flow that calls each level in the one before; the last one returns how it ends."""

    @flow
    def run(ids, cancelled):
        ids = [*ids, str(FlowRunContext.get().flow_run.id)]
        if levels:
            return nested(*levels[1:])(ids, cancelled)
        return here(TERMINATED, StateType.CANCELLING, at=ids[cancelled])

    return run


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_nested_flow_is_cancelled_with_any_flow_run_around_it(cancelled):
    assert nested("middle", "inner")([], cancelled) == "cancelled"


@pytest.mark.usefixtures("prefect_server")
def test_a_nested_flow_in_a_task_is_cancelled_with_the_flow_run_around_it():
    @flow
    def outer():
        mine = FlowRunContext.get().flow_run.id
        return task(lambda: flow(here)(TERMINATED, StateType.CANCELLING, at=mine))()

    assert outer() == "cancelled"


def test_the_climb_ends_at_a_run_of_a_deployment(monkeypatch):
    """Such a run is a root: the cancellation of the run that started it does not affect it."""
    child, parent, link = uuid4(), uuid4(), uuid4()
    state = {kind: SimpleNamespace(type=kind) for kind in StateType}

    class Api:
        def __init__(self, deployment):
            self.deployment = deployment

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read_flow_run(self, run_id):
            if run_id == parent:
                return SimpleNamespace(
                    state=state[StateType.CANCELLING], parent_task_run_id=None, deployment_id=uuid4()
                )
            return SimpleNamespace(
                state=state[StateType.RUNNING], parent_task_run_id=link, deployment_id=self.deployment
            )

        def read_task_run(self, run_id):
            assert run_id == link
            return SimpleNamespace(flow_run_id=parent)

    monkeypatch.setattr(outcome, "get_client", lambda **options: Api(deployment=None))
    assert ending_of(TERMINATED, child) == "cancelled"
    monkeypatch.setattr(outcome, "get_client", lambda **options: Api(deployment=uuid4()))
    assert ending_of(TERMINATED, child) == "crashed"


@pytest.mark.parametrize("error", [*DEATHS, GeneratorExit()], ids=repr)
def test_a_prefect_server_that_does_not_respond_means_a_crash(error):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert ending_of(error, uuid4()) == "crashed"


@LEAKY
@pytest.mark.usefixtures("prefect_server")
def test_a_time_limit_of_prefect_is_a_failure():
    endings = []

    def waits():
        try:
            # Prefect's time limit interrupts it between two steps.
            for _ in range(3000):
                time.sleep(0.02)
        except BaseException as error:
            endings.append(ending_of(error))
            raise

    async def waits_async():
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            endings.append(ending_of(error))
            raise

    for run in (
        lambda: flow(timeout_seconds=0.5)(waits)(),
        lambda: flow(lambda: task(timeout_seconds=0.5)(waits)())(),
        lambda: asyncio.run(flow(timeout_seconds=0.5)(waits_async)()),
    ):
        with pytest.raises(TimeoutError):
            run()
    assert endings == ["failed"] * 3
    gc.collect()


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (StateType.CRASHED, "crashed"),
        (StateType.CANCELLED, "cancelled"),
        (StateType.FAILED, "cancelled"),
        (StateType.COMPLETED, "cancelled"),
        (StateType.RUNNING, "cancelled"),
        (StateType.PAUSED, "suspended"),
    ],
)
def test_a_block_that_was_dropped_ends_by_the_state_of_the_run(kind, ending):
    run = flow(enclosing_run)()
    set_state(run, kind)
    assert ending_of(GeneratorExit(), run) == ending


@pytest.mark.usefixtures("prefect_server")
def test_a_block_that_is_closed_by_a_termination_was_not_dropped_by_its_caller():
    @flow
    def nightly():
        def block():
            try:
                yield
            except GeneratorExit as error:
                endings.append(ending_of(error))
                raise

        opened = block()
        next(opened)
        try:
            raise TERMINATED
        except TerminationSignal:
            opened.close()

    endings = []
    nightly()
    assert endings == ["crashed"]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_whose_time_limit_is_over_is_timed_out_unless_it_had_ended_before():
    @flow
    def nightly():
        return enclosing_run()

    found = {}
    for state in (Completed(), Failed(), Failed(name="TimedOut"), Running(), AwaitingRetry()):
        run = nightly()
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, state, force=True)
        found[state.name] = is_timed_out(run)
    expected = {"Completed": False, "Failed": False, "TimedOut": True, "Running": True, "AwaitingRetry": True}
    assert found == expected


ASYNC_SCRIPT = """
import asyncio, sys
from ags_flows.run.outcome import ending_of

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    except BaseException as error:
        from uuid import uuid4
        # No server responds: without a sign of Ctrl-C it would be a crash.
        print(type(error).__name__, ending_of(error, uuid4()), flush=True)
        raise

asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 asyncio does not cancel the main task")
def test_ctrl_c_in_an_async_flow_is_a_cancellation():
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = subprocess.Popen([sys.executable, "-c", ASYNC_SCRIPT], env=environment, stdout=-1, stderr=-1, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert out == "CancelledError cancelled\n"


def in_a_thread(run_id=None):
    """Enter an interruptible block in another thread; return its thread, and how it has to end once it is left."""
    woken, entered, endings = threading.Event(), threading.Event(), []

    def work():
        with interruptible(woken.set, run_id) as interruption:
            entered.set()
            assert woken.wait(60)
        endings.append(interruption.ending)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(60)
    return thread, woken, endings


def leave_by(error, run_id=None):
    """Leave a block in this thread by an exception; return how it ends."""
    with interruptible(lambda: None, run_id) as block:
        return block.ending_by(error)


@pytest.mark.parametrize("error", [TERMINATED, KeyboardInterrupt()], ids=repr)
def test_the_end_of_the_process_interrupts_blocks_in_other_threads(error):
    thread, _, endings = in_a_thread()
    assert leave_by(error) == "cancelled"
    thread.join(60)
    assert endings == ["cancelled"]


def test_a_crash_of_the_process_makes_blocks_in_other_threads_leave_their_sandboxes():
    thread, _, endings = in_a_thread()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert leave_by(TERMINATED, uuid4()) == "crashed"
    thread.join(60)
    assert endings == ["crashed"]


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError(), GeneratorExit(), Pause()], ids=repr)
def test_the_end_of_one_block_does_not_interrupt_the_others(error):
    thread, woken, endings = in_a_thread()
    leave_by(error)
    assert not woken.is_set()
    woken.set()
    thread.join(60)
    assert endings == [None]


@pytest.mark.usefixtures("prefect_server")
def test_a_cancelled_flow_run_interrupts_its_blocks_in_other_threads_alone():
    @flow
    def nightly():
        mine, other = in_a_thread(enclosing_run()), in_a_thread(uuid4())
        set_state(enclosing_run(), StateType.CANCELLING)
        assert leave_by(asyncio.CancelledError(), enclosing_run()) == "cancelled"
        mine[0].join(60)
        woken = other[1].is_set()
        other[1].set()
        other[0].join(60)
        return mine[2], woken, other[2]

    assert nightly() == (["cancelled"], False, [None])


def test_asking_takes_no_longer_than_a_runner_waits():
    """A server that accepts connections and does not respond."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        started = time.monotonic()
        with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: url}):
            patch.setattr(outcome, "REQUEST_TIMEOUT", 0.1)
            patch.setattr(outcome, "REQUEST_RETRIES", 0)
            assert leave_by(TERMINATED, uuid4()) == "crashed"
    assert time.monotonic() - started < 20
