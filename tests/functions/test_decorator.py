"""Decorated functions in flows: they share sandboxes, are retried by the class of the error, and leave nothing."""

import asyncio
import functools
import threading
import time

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Cancelling
from prefect.task_runners import ProcessPoolTaskRunner

from ags_flows import awaitable, in_sandbox
from ags_flows.errors import ConfigurationError, FunctionError, WaitCancelledError
from ags_flows.flows.run_items import run_items
from ags_flows.functions.pools import Pools
from ags_flows.ownership import LIVE, Frame, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.tasks import list_instances, stop_instance

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(autouse=True)
def environment(ags_emulator, monkeypatch):
    """Let decorators without `config` use the emulator."""
    ags_emulator.transition("tool.create", "at_once")
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)


def live(config):
    return [one for one in list_instances.fn(config=config) if one.status in LIVE]


def soon(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@in_sandbox(tool="base", sandboxes=3)
def where(number: int, pause: float = 0.0) -> list:
    """Return where it runs."""
    import socket
    import time

    time.sleep(pause)
    return [number, socket.gethostname()]


def test_calls_of_a_run_share_sandboxes_and_the_end_of_the_run_stops_them(ags_config):
    @flow
    def mapped():
        first = where(0)
        futures = where.map(list(range(1, 13)), pause=0.2)
        return [first, *futures.result(), where.submit(13).result(), where.with_options(name="other")(14)]

    found = mapped()
    assert [number for number, _ in found] == list(range(15))
    assert len({host for _, host in found}) <= 3
    assert len(list_instances.fn(config=ags_config)) <= 3
    soon(lambda: not live(ags_config))
    assert where.__doc__ == "Return where it runs."


def test_an_idle_sandbox_is_stopped_during_the_run(ags_config):
    @in_sandbox(tool="base", idle=0.2)
    def quick():
        return 1

    @flow
    def pausing():
        quick()
        soon(lambda: not live(ags_config))
        return quick()

    assert pausing() == 1


# Prefect leaves a socket to the garbage collector when the event loop of an async flow ends.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_flow_calls_functions_in_threads(ags_config):
    @flow
    async def concurrent():
        pair = await asyncio.gather(asyncio.to_thread(where, 1), asyncio.to_thread(where, 2))
        return [*pair, where.submit(3).result()]

    assert [number for number, _ in asyncio.run(concurrent())] == [1, 2, 3]
    soon(lambda: not live(ags_config))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_call_whose_coroutine_is_cancelled_is_killed_and_its_siblings_go_on(ags_config):
    async def impatient():
        with pytest.raises(asyncio.TimeoutError):
            # The limit is reached when both calls run.
            await asyncio.wait_for(awaitable(where)(1, pause=600), 5)

    @flow
    async def concurrent():
        began = time.monotonic()
        first, *others = await asyncio.gather(*(awaitable(where)(number, pause=0.0) for number in (2, 3)))
        _, sibling = await asyncio.gather(impatient(), awaitable(where)(4, pause=6.5))
        return first, *others, sibling, await awaitable(where)(5), time.monotonic() - began

    *found, took = asyncio.run(concurrent())
    assert [number for number, _ in found] == [2, 3, 4, 5]
    assert took < 30
    soon(lambda: not live(ags_config))
    # The cancelled call is not made again, which would need another one.
    assert len(list_instances.fn(config=ags_config)) == 2


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def in_processes():
    """Call a function in the processes of a pool."""
    return where.map([1, 2, 3, 4], pause=0.2).result()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_calls_in_a_pool_of_processes_leave_nothing_when_the_pool_ends(ags_config):
    assert [number for number, _ in in_processes()] == [1, 2, 3, 4]
    assert list_instances.fn(config=ags_config)
    soon(lambda: not live(ags_config))


def test_a_start_whose_response_is_lost_is_found(ags_emulator, ags_config):
    ags_emulator.fault("lost", "StartSandboxInstance")

    @flow
    def once():
        return where(1)

    assert once()[0] == 1
    assert len(list_instances.fn(config=ags_config)) == 1
    soon(lambda: not live(ags_config))


def test_decorators_above_act_on_this_machine(ags_config):
    seen = []

    def noting(inner):
        @functools.wraps(inner)
        def noted(*args):
            seen.append(args)
            return inner(*args) + 1

        return noted

    @noting
    @in_sandbox(tool="base")
    def plus(number):
        return number + 1

    @flow
    def noted_flow():
        return plus(1)

    assert noted_flow() == 3
    assert seen == [(1,)]


def test_an_exception_of_the_function_is_repeated_only_as_often_as_is_asked(ags_config):
    @in_sandbox(tool="base", retries_of_failed=1, retries=5)
    def failing_once(mark):
        import os

        if not os.path.exists(mark):
            open(mark, "w").close()
            raise ValueError("first")
        return "second"

    never = failing_once.with_options(retries=0)

    @flow
    def tried():
        state = never("a", return_state=True)
        return state.result(raise_on_failure=False), failing_once("b")

    error, value = tried()
    assert isinstance(error, FunctionError) and error.error_type == "ValueError"
    assert value == "second"


def test_a_sandbox_that_dies_is_replaced_and_the_call_is_made_again(ags_config):
    started = threading.Event()

    def kill_the_first():
        soon(lambda: live(ags_config))
        started.wait(10)
        stop_instance.fn(live(ags_config)[0], config=ags_config)

    @in_sandbox(tool="base", retries=1)
    def slow(path):
        import time

        time.sleep(1.5)
        return "done"

    slow_task = slow.with_options(retry_delay_seconds=0)

    @flow
    def dying():
        killer = threading.Thread(target=kill_the_first)
        killer.start()
        future = slow_task.submit("x")
        soon(lambda: live(ags_config) and live(ags_config)[0].status == "RUNNING")
        started.set()
        killer.join()
        return future.result()

    assert dying() == "done"
    assert len(list_instances.fn(config=ags_config)) == 2
    soon(lambda: not live(ags_config))


def test_a_time_limit_of_prefect_leaves_no_function_beside_the_next_call(ags_config):
    @in_sandbox(tool="base", sandboxes=1, retries=0)
    def beat(seconds):
        import os
        import time

        ends, before = time.monotonic() + seconds, os.path.exists("beats")
        while time.monotonic() < ends:
            open("beats", "w").close()
            time.sleep(0.1)
        return before

    @flow
    def limited():
        state = beat.with_options(timeout_seconds=1)(60, return_state=True)
        return state.is_failed(), beat(0)

    assert limited() == (True, False)


def test_bad_arguments_are_refused_before_a_sandbox_starts(ags_config):
    @flow
    def bad():
        where([{"when": 1j}])

    with pytest.raises(ConfigurationError, match=r"number\[0\].when: a value of type complex is not JSON"):
        bad()
    assert not list_instances.fn(config=ags_config)


def test_the_tool_of_an_image_is_made_once(ags_config):
    @in_sandbox(image="python:3.11", cpu="2", memory="1Gi")
    def answer():
        return 42

    @flow
    def asking():
        return answer()

    assert [asking(), asking()] == [42, 42]
    tools = {one.tool_name for one in list_instances.fn(config=ags_config)}
    assert len(tools) == 1 and tools.pop().startswith("fn-python-3-11-")


def test_calls_share_what_the_quota_leaves(ags_emulator, ags_config):
    @in_sandbox(tool="base", sandboxes=20)
    def napping(number):
        import time

        time.sleep(0.1)
        return number

    @flow
    def many():
        return napping.map(list(range(24))).result()

    ags_emulator.limits(quotas=True)
    assert many() == list(range(24))
    assert len(list_instances.fn(config=ags_config)) <= 10


def test_a_function_of_run_items_is_called_in_its_sandbox(ags_config, tmp_path):
    @in_sandbox(tool="base")
    def square(number):
        import socket

        return [number**2, socket.gethostname()]

    @flow
    def batch():
        return run_items([1, 2, 3], square, tool="base", sandboxes=2, results=tmp_path / "r", config=ags_config)

    report = batch()
    assert report.succeeded == 3
    assert '"value": [9,' in (tmp_path / "r" / "results.jsonl").read_text().replace('":[', '": [')
    assert not live(ags_config)


def attempt(number):
    return acting_as(Execution(frames=(Frame("flow", "e" * 32, number),), owner=Owner("run-of-functions")))


def counting(name, pause):
    import time

    with open("/tmp/runs", "a") as runs:
        runs.write(name + "\n")
    time.sleep(pause)
    return name, open("/tmp/runs").read().split().count(name)


def test_a_retry_after_a_crash_finds_every_call_in_the_sandbox_that_has_it(ags_config, monkeypatch):
    counted = in_sandbox(tool="base", sandboxes=3, idle=60)(counting)

    def called(number, names, found):
        def work(name):
            with attempt(number):
                found[name] = counted.fn(name, 0.0 if name == "short" else 2.0)

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        return threads

    # The first process: its pools are never ended, as if it had been killed.
    first = Pools()
    monkeypatch.setattr("ags_flows.functions.pools._pools_of_process", first)
    names = ["short", "long", "longer"]
    threads = called(1, names, {})
    soon(lambda: len([one for one in live(ags_config) if one.status == "RUNNING"]) == 3)
    threads[0].join()
    monkeypatch.setattr("ags_flows.functions.pools._pools_of_process", Pools())
    found = {}
    for thread in called(2, ["longer", "short", "long"], found):
        thread.join()
    assert found == {name: (name, 1) for name in names}
    assert len(list_instances.fn(config=ags_config)) == 3
    for thread in threads:
        thread.join()


def test_a_cancelled_run_stops_its_sandboxes(ags_config):
    def cancel(run_id):
        soon(lambda: [one for one in live(ags_config) if one.status == "RUNNING"])
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, Cancelling(), force=True)

    @flow
    def cancelled():
        canceller = threading.Thread(target=cancel, args=(flow_run.id,))
        canceller.start()
        futures = where.map([1, 2], pause=60)
        canceller.join()
        futures.result()

    began = time.monotonic()
    with pytest.raises(WaitCancelledError):
        cancelled()
    soon(lambda: not live(ags_config))
    assert time.monotonic() - began < 25


def test_a_task_of_the_users_own_can_call_functions(ags_config):
    @task
    def outer(number):
        return where(number)[0] + 1

    @flow
    def nested():
        return outer.map([1, 2]).result()

    assert nested() == [2, 3]
    soon(lambda: not live(ags_config))
