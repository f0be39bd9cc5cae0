"""The holder of a call names every execution that a retry repeats, and a step is the same in each of its attempts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from types import SimpleNamespace

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.task_runners import ProcessPoolTaskRunner

from ags_flows.models import ToolSpec
from ags_flows.ownership import relation
from ags_flows.run.holder import (
    STEP,
    Execution,
    acting_as,
    attempt_of,
    current_execution,
    for_this_run,
    identify,
    owner,
)

pytestmark = pytest.mark.usefixtures("prefect_server")

# Prefect leaves some of its sockets to the garbage collector when a process pool or an event loop ends.
LEFT_SOCKETS = ("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@task
def step(command="make", name="exec"):
    return identify(name, {"command": command})


setattr(step.fn, STEP, True)


def kinds(one):
    return [frame.kind for frame in one.holder.frames]


def test_a_call_in_a_flow_is_held_by_the_run_and_by_its_own_task_run():
    @flow
    def once():
        return step()

    found = once()
    assert kinds(found) == ["flow", "call"]
    assert found.root == found.holder.frames[0].id
    assert not found.holder.is_retry


def test_two_identical_calls_are_siblings_of_one_family():
    @flow
    def twice():
        return step(), step()

    first, second = twice()
    assert first.family == second.family
    assert relation(first.holder, second.holder) == "sibling"
    assert first.client_token() != second.client_token()


def test_a_retry_of_the_own_task_is_the_same_call():
    seen = []

    @task(retries=2, retry_delay_seconds=0)
    def flaky():
        seen.append(identify("exec", {}))
        if len(seen) < 3:
            raise RuntimeError("again")

    setattr(flaky.fn, STEP, True)

    @flow
    def once():
        flaky()

    once()
    assert {relation(seen[0].holder, other.holder) for other in seen} == {"same"}
    assert len({one.client_token() for one in seen}) == 1


def test_a_retry_of_a_users_task_supersedes_its_earlier_attempt():
    seen = []

    @task(retries=1, retry_delay_seconds=0)
    def flaky():
        seen.append([step(), step()])
        if len(seen) == 1:
            raise RuntimeError("again")

    @flow
    def once():
        flaky()

    once()
    (first, _), (again, _) = seen
    assert kinds(again) == ["flow", "task", "call"]
    assert again.family == first.family
    assert relation(again.holder, first.holder) == "superseded"
    assert relation(first.holder, again.holder) == "stale"
    assert again.holder.is_retry


def test_a_retry_of_the_flow_run_supersedes_its_earlier_attempt_in_every_place():
    attempts = []

    @task
    def measure(fruit):
        return step()

    @flow
    def inner():
        return step()

    @flow(retries=1)
    def outer():
        mapped = measure.map(["pears", "plums"]).result()
        attempts.append([step(), inner(), *mapped])
        if len(attempts) == 1:
            raise RuntimeError("again")

    outer()
    for first, again in zip(*attempts, strict=True):
        assert first.family == again.family
        assert relation(again.holder, first.holder) == "superseded"
    assert len({one.family for one in attempts[0]}) == 4
    assert [kinds(one) for one in attempts[0]] == [
        ["flow", "call"],
        ["flow", "flow", "call"],
        ["flow", "task", "call"],
        ["flow", "task", "call"],
    ]


def test_a_retry_of_a_subflow_supersedes_its_earlier_attempt():
    seen = []

    @flow(retries=1)
    def inner():
        seen.append(step())
        if len(seen) == 1:
            raise RuntimeError("again")

    @task
    def around():
        inner()

    @flow
    def outer():
        around()

    outer()
    assert kinds(seen[0]) == ["flow", "task", "flow", "call"]
    assert relation(seen[1].holder, seen[0].holder) == "superseded"
    assert seen[0].family == seen[1].family


def test_a_resumed_run_is_a_later_attempt_although_its_run_count_stays():
    run = SimpleNamespace(run_count=1, total_run_time=timedelta())
    resumed = SimpleNamespace(run_count=1, total_run_time=timedelta(seconds=3))
    retried = SimpleNamespace(run_count=2, total_run_time=timedelta(seconds=3))
    assert 1 == attempt_of(run) < attempt_of(resumed) < attempt_of(retried)
    # The server's clock was set back while the run was executed.
    set_back = SimpleNamespace(run_count=2, total_run_time=timedelta(seconds=-30))
    assert attempt_of(resumed) < attempt_of(set_back) < attempt_of(retried)


def test_another_run_is_a_stranger_with_other_families():
    @flow
    def once():
        return step()

    first, second = once(), once()
    assert first.family != second.family
    assert relation(first.holder, second.holder) == "stranger"


def test_places_differ_by_parameters_and_values_of_ours_count_by_their_place():
    class Session:
        place_key = "where-it-was-started"

    @task
    def measure(what):
        return step()

    @flow
    def once():
        return [measure(what) for what in ("pears", "plums", Session(), Session(), object())]

    pears, plums, one, other, odd = once()
    assert pears.family != plums.family
    assert one.family == other.family
    assert odd.family not in (pears.family, plums.family, one.family)


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs:UserWarning")
def test_a_task_without_a_flow_is_a_root_and_its_calls_are_siblings():
    @task
    def background():
        return identify("exec", {}), identify("exec", {})

    first, second = background()
    assert kinds(first) == ["task", "call"]
    assert first.family == second.family
    assert relation(first.holder, second.holder) == "sibling"


def test_outside_of_runs_every_call_is_a_stranger():
    first, second = identify("exec", {}), identify("exec", {})
    assert kinds(first) == ["call"]
    assert relation(first.holder, second.holder) == "stranger"
    assert first.family != second.family
    assert owner().flow_run_id == ""


def test_a_plain_thread_has_no_execution_but_one_with_the_context_has():
    @flow
    def once():
        with ThreadPoolExecutor(1) as pool:
            bare = pool.submit(identify, "exec", {}).result()
            inherited = pool.submit(copy_context().run, identify, "exec", {}).result()
        return bare, inherited

    bare, inherited = once()
    assert (kinds(bare), kinds(inherited)) == (["call"], ["flow", "call"])


@pytest.mark.filterwarnings(*LEFT_SOCKETS)
def test_an_async_flow_and_its_threads_have_the_same_execution():
    @flow
    async def once():
        return identify("exec", {}), await asyncio.to_thread(identify, "exec", {})

    here, in_thread = asyncio.run(once())
    assert kinds(here) == kinds(in_thread) == ["flow", "call"]
    assert here.family == in_thread.family


@task
def pooled(number):
    return identify("exec", {})


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pool_of_processes():
    return identify("exec", {}), pooled.map([1, 2]).result()


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings(*LEFT_SOCKETS)
def test_tasks_in_a_process_pool_are_held_by_the_run_and_are_siblings():
    here, (first, second) = pool_of_processes()
    assert kinds(first) == ["flow", "task", "call"]
    assert first.root == here.root
    assert relation(first.holder, second.holder) == "sibling"
    assert first.family != second.family


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def nested_pool():
    return pooled.map([1]).result()[0]


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings(*LEFT_SOCKETS)
def test_a_process_pool_of_a_subflow_knows_the_outermost_run():
    @flow
    def outer():
        return identify("exec", {}), nested_pool()

    here, pooled_step = outer()
    assert kinds(pooled_step) == ["flow", "flow", "task", "call"]
    assert pooled_step.root == here.root


def test_a_run_with_a_deployment_is_a_separate_root():
    @flow
    def child():
        return identify("exec", {})

    @flow
    def parent():
        with get_client(sync_client=True) as client:
            made = client.create_deployment(client.create_flow(child), name="served")
            run = client.create_flow_run_from_deployment(made)
        from prefect.flow_engine import run_flow

        return identify("exec", {}), run_flow(child, flow_run=run)

    mine, theirs = parent()
    assert kinds(theirs) == ["flow", "call"]
    assert relation(theirs.holder, mine.holder) == "stranger"


def test_an_item_of_a_batch_is_an_execution_and_a_retry_of_the_run_goes_on_with_its_attempt():
    attempts = []

    @flow(retries=1)
    def batch():
        base = current_execution()
        with acting_as(base.within_item("k", 1)):
            first = identify("exec", {})
        with acting_as(base.within_item("k", 2)):
            second = identify("exec", {})
        attempts.append((first, second))
        if len(attempts) == 1:
            raise RuntimeError("again")

    batch()
    (first, second), (again, _) = attempts
    assert kinds(first) == ["flow", "item", "call"]
    assert first.family != second.family
    assert first.family == again.family
    assert relation(again.holder, first.holder) == "superseded"


def test_a_users_task_inside_of_an_item_is_an_execution_too():
    seen = []

    @task(retries=1, retry_delay_seconds=0)
    def flaky():
        seen.append(step())
        if len(seen) == 1:
            raise RuntimeError("again")

    @flow
    def batch():
        with acting_as(current_execution().within_item("k", 1)):
            flaky()

    batch()
    assert kinds(seen[0]) == ["flow", "item", "task", "call"]
    assert relation(seen[1].holder, seen[0].holder) == "superseded"


def test_items_of_a_batch_outside_of_runs_have_a_separate_root():
    found = []
    for _ in range(2):
        with acting_as(Execution().rooted().within_item("k", 1)):
            found.append(identify("exec", {}))
    assert relation(found[0].holder, found[1].holder) == "stranger"


def test_tools_of_a_run_carry_the_run_in_name_and_tags():
    @flow
    def once():
        spec = ToolSpec(name="etl" * 16, image="python:3.11")
        return owner().flow_run_id, for_this_run(spec), for_this_run(spec)

    run, first, second = once()
    assert first == second
    assert len(first.name) <= 50
    assert first.name.endswith(run.replace("-", "")[-8:])
    assert first.tags["flow-run-id"] == run


def test_the_owner_is_the_outermost_run_with_the_innermost_beside_it():
    @flow
    def inner():
        return owner()

    @flow
    def outer():
        return owner(), inner()

    mine, nested = outer()
    assert nested.flow_run_id == mine.flow_run_id
    assert mine.subflow_run_id == "" != nested.subflow_run_id
