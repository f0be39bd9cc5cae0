"""Sessions where people use them: in async flows, in nested flows, several concurrently; and what they leave."""

import asyncio
import itertools
import os
import threading
import time

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from ags_flows import sandbox_session
from ags_flows.errors import TransferError
from ags_flows.models import ToolSpec
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.tasks import exec_command, list_instances, list_tools, pause_instance

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(autouse=True)
def quick_tools(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")


def steps_of(run_id, expected):
    """The names of a run's task runs; the server takes them in a moment later."""
    deadline = time.monotonic() + 30
    while True:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        if len(found) >= expected or time.monotonic() > deadline:
            return sorted(run.name for run in found)
        time.sleep(0.2)


def nothing_is_left(config):
    alive = ("STARTING", "RUNNING", "PAUSED")
    return not [one for one in list_instances.fn(config=config) if one.status in alive] and not [
        tool for tool in list_tools.fn(config=config) if tool.tags.get("managed-by") == "ags-flows"
    ]


# Prefect leaves a socket to the garbage collector when the event loop of an async flow ends.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_flow_works_in_concurrent_threads(ags_config):
    seen = {}

    def work(name):
        with sandbox_session(ToolSpec(name=name, image="python:3.11"), config=ags_config) as sandbox:
            seen[name] = sandbox.instance.metadata
            return sandbox.run(f"sleep 0.5; echo {name}", check=True).stdout.strip()

    @flow
    async def nightly():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.05)
                ticks += 1

        ticker = asyncio.create_task(tick())
        results = await asyncio.gather(asyncio.to_thread(work, "left"), asyncio.to_thread(work, "right"))
        ticker.cancel()
        return flow_run.id, results, ticks

    run_id, results, ticks = asyncio.run(nightly())
    assert results == ["left", "right"]
    assert ticks > 5
    assert {metadata["flow-run-id"] for metadata in seen.values()} == {str(run_id)}
    names = steps_of(run_id, 12)
    assert sum(name.startswith("exec: ") for name in names) == 2
    assert sum(name.startswith("cleanup") for name in names) == 2
    assert nothing_is_left(ags_config)


def test_a_session_in_a_nested_flow_belongs_to_the_outermost_run(ags_config):
    @flow
    def inner(name):
        with sandbox_session(ToolSpec(name=name, image="python:3.11"), config=ags_config) as sandbox:
            sandbox.write("note", name)
            return sandbox.read("note").decode(), dict(sandbox.instance.metadata), flow_run.id

    @flow
    def outer():
        return flow_run.id, inner("one"), inner("two")

    outermost, (first, metadata, nested), (second, _, _) = outer()
    assert (first, second) == ("one", "two")
    assert metadata["flow-run-id"] == str(outermost)
    assert metadata["subflow-run-id"] == str(nested)
    assert nothing_is_left(ags_config)


def test_sessions_within_each_other_and_in_submitted_tasks_do_not_disturb_each_other(ags_config):
    @task
    def in_a_task(number):
        with sandbox_session("base", config=ags_config) as sandbox:
            return sandbox.instance.id, sandbox.run(f"echo {number}").stdout.strip()

    @flow
    def crossed():
        with sandbox_session("base", config=ags_config) as first, sandbox_session("base", config=ags_config) as second:
            first.write("shared", "from the first")
            second.write("shared", first.read("shared"))
            futures = [in_a_task.submit(number) for number in range(3)]
            return {first.instance.id, second.instance.id}, [future.result() for future in futures]

    mine, others = crossed()
    assert len(mine | {instance for instance, _ in others}) == 5
    assert [text for _, text in others] == ["0", "1", "2"]
    assert nothing_is_left(ags_config)


def test_a_session_leaves_no_thread_and_no_sandbox_behind_an_error(ags_config):
    @flow
    def broken():
        with sandbox_session("base", config=ags_config):
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        broken()
    assert nothing_is_left(ags_config)
    deadline = time.monotonic() + 10
    while any(thread.name == "ags-leases" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("paused", [False, True])
def test_a_session_that_is_taken_over_runs_without_a_wait(ags_config, paused):
    def attempt(number):
        return acting_as(Execution(frames=(Frame("flow", "a" * 32, number),), owner=Owner("run-1")))

    earlier, steps = sandbox_session("base", config=ags_config), []
    with attempt(1):
        left = earlier.__enter__()
    if paused:
        pause_instance.fn(left.instance, config=ags_config)
    with attempt(2), sandbox_session("base", steps=steps, config=ags_config) as sandbox:
        assert (sandbox.instance.id, sandbox.instance.status) == (left.instance.id, "RUNNING")
        assert [one.name for one in steps] == ["start instance"]
        assert sandbox.run("echo fine").stdout == "fine\n"
    earlier.__exit__(None, None, None)


def test_a_time_limit_of_prefect_kills_the_command_in_the_sandbox(ags_config):
    @flow
    def limited():
        with sandbox_session("base", config=ags_config) as sandbox:
            with pytest.raises(TimeoutError):
                exec_command.with_options(timeout_seconds=2)(sandbox.instance, "sleep 4747", config=ags_config)
            return sandbox.run("pgrep -xf 'sleep 4747'", durable=False).exit_code

    assert limited() == 1


def test_no_download_is_led_outside_by_a_link_that_another_one_has_brought(ags_config, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    pairs = ["res res/sub/g/x", "alias res/g/x", "res alias/g/x", "res res/g"]
    with sandbox_session(ToolSpec(name="links", image="python:3.11"), config=ags_config) as sandbox:
        sandbox.run(f"mkdir -p out/sub; ln -s {outside} out/g; ln -s {outside} out/sub/g; echo b >b", check=True)
        for number, (pair, order) in enumerate(itertools.product(pairs, (1, -1))):
            root = tmp_path / str(number)
            (root / "res").mkdir(parents=True)
            (root / "alias").symlink_to("res")
            first, second = (str(root / name) for name in pair.split())
            # What one run has written is there in the next one.
            for _ in range(2):
                sandbox.collect(dict([("out", first), ("b", second)][::order]), must=False)
            assert os.listdir(outside) == []
            assert order == -1 or os.readlink(root / "res" / "g") == str(outside)
        with pytest.raises(TransferError, match="res/g is in .*res, and leads to .*outside by a link; nothing was"):
            sandbox.collect({"b": str(root / "res/g"), "out": str(root / "res")})


def test_downloads_inside_of_each_other_and_through_links_inside_are_made(ags_config, tmp_path):
    res, elsewhere = tmp_path / "res", tmp_path / "elsewhere"
    (res / "real").mkdir(parents=True)
    (res / "link").symlink_to("real")
    elsewhere.mkdir()
    (tmp_path / "mine").symlink_to(elsewhere)
    paths = {"out": res, "a": res / "link" / "a", "b": res / "new" / "b", "c": tmp_path / "mine" / "c"}
    with sandbox_session(ToolSpec(name="links", image="python:3.11"), config=ags_config) as sandbox:
        sandbox.run("mkdir out; touch out/o a b c", check=True)
        assert len(sandbox.collect({remote: str(local) for remote, local in paths.items()})) == 4
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("?")) == [
        "elsewhere/c",
        "res/new/b",
        "res/o",
        "res/real/a",
    ]
