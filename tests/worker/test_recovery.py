"""A worker that died: another one goes on with its flow runs, and reports what was lost."""

import asyncio
from datetime import timedelta

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling, Pending

from ags_flows.cloud.data_planes import open_plane
from ags_flows.worker.configurations import configuration_of
from ags_flows.worker.job import FlowRunSandbox
from tests.worker.conftest import IMAGE, ended, soon, state

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect leaves sockets to the garbage collector when an event loop ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_another_worker_goes_on_with_a_run_and_its_process_runs_once(pool):
    run = pool.submit(state("RUNNING"), "echo x >> runs", "while [ ! -e go ]; do sleep 0.1; done", state("COMPLETED"))

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)
    instance = pool.live(run)[0]

    async def second(worker):
        await soon(lambda: run in worker._active)
        await soon(lambda: pool.live(run)[0].metadata["lease"])
        plane = open_plane(worker._active[run]._config.connection(), instance.id).plane
        await asyncio.to_thread(plane.write, "go", "")
        runs = await asyncio.to_thread(plane.read, "runs")
        return runs, await soon(lambda: ended(pool, run))

    runs, found = pool.perform(second, name="another")
    assert runs == b"x\n"
    assert found.state.type == StateType.COMPLETED
    assert [one.id for one in pool.instances(run)] == [instance.id]


def test_a_run_that_cannot_be_recovered_does_not_prevent_the_recovery_of_others(pool):
    wait = "while [ ! -e go ]; do sleep 0.1; done"
    healthy = pool.submit(state("RUNNING"), wait, state("COMPLETED"))
    broken_deployment = pool.deploy(command=" && ".join([state("RUNNING"), "sleep 600"]))
    broken = pool.submit(deployment=broken_deployment)

    async def first(worker):
        await soon(lambda: pool.run(healthy).state.is_running() and pool.run(broken).state.is_running())

    pool.perform_and_die(first)
    with get_client(sync_client=True) as client:
        client.update_deployment(broken_deployment, DeploymentUpdate(job_variables={"image": IMAGE, "lease": "soon"}))

    async def second(worker):
        await soon(lambda: healthy in worker._active)
        plane = open_plane(worker._active[healthy]._config.connection(), pool.live(healthy)[0].id).plane
        await asyncio.to_thread(plane.write, "go", "")
        return await soon(lambda: ended(pool, healthy))

    assert pool.perform(second, name="another").state.type == StateType.COMPLETED


async def go_on(pool, worker, run):
    """Let a flow that waits for the file `go` end, once another worker follows it."""
    await soon(lambda: run in worker._active and worker._active[run]._leased)
    plane = open_plane(worker._active[run]._config.connection(), pool.live(run)[0].id).plane
    await asyncio.to_thread(plane.write, "go", "")
    return await soon(lambda: ended(pool, run))


def test_a_run_whose_template_is_wrong_now_goes_on_as_it_began(pool):
    deployment = pool.deploy(
        command=" && ".join([state("RUNNING"), "while [ ! -e go ]; do sleep 0.1; done", state("COMPLETED")])
    )
    run = pool.submit(deployment=deployment)

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)
    with get_client(sync_client=True) as client:
        client.update_deployment(deployment, DeploymentUpdate(job_variables={"image": IMAGE, "lease": "soon"}))
    found = pool.perform(lambda worker: go_on(pool, worker, run), name="another")
    assert found.state.type == StateType.COMPLETED


def test_a_configuration_that_is_written_into_the_work_pool_is_where_sandboxes_are_looked_for(
    pool, emulator, monkeypatch
):
    keys = {"method": "keys", "secret_id": emulator.secret_id, "secret_key": emulator.secret_key}
    where = {"region": "ap-guangzhou", "http_endpoint": emulator.url, "domain": emulator.url}
    pool.set_default("config", {**where, "credentials": keys})
    for name in emulator.environment:
        monkeypatch.delenv(name)
    run = pool.submit(state("RUNNING"), "while [ ! -e go ]; do sleep 0.1; done", state("COMPLETED"))

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)
    found = pool.perform(lambda worker: go_on(pool, worker, run), name="another")
    assert found.state.type == StateType.COMPLETED


def test_a_run_goes_on_when_a_block_of_its_secrets_was_deleted_since(pool):
    Secret(value="secret-of-the-first").save("soon-deleted", overwrite=True)
    run = pool.submit(
        state("RUNNING"),
        "while [ ! -e go ]; do sleep 0.1; done",
        '[ "$TOKEN" = secret-of-the-first ]',
        state("COMPLETED"),
        secrets={"TOKEN": "soon-deleted"},
    )

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)
    Secret.delete("soon-deleted")
    found = pool.perform(lambda worker: go_on(pool, worker, run), name="another")
    assert found.state.type == StateType.COMPLETED


def test_an_error_of_the_recovery_that_is_not_expected_ends_in_a_reported_state(pool, monkeypatch):
    run = pool.submit(state("RUNNING"), "sleep 100")

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)

    def broken(sandbox, instance):
        sandbox.instance = instance
        raise RuntimeError("not expected")

    monkeypatch.setattr(FlowRunSandbox, "attach", broken)
    found = pool.end_of(run, name="another")
    assert found.state.type == StateType.CRASHED
    assert "RuntimeError: not expected" in found.state.message


@pytest.fixture
def taken_for_lost(monkeypatch):
    """Take pending runs for those of a dead worker immediately."""
    monkeypatch.setattr("ags_flows.worker.worker.PENDING_FOR", timedelta(0))


@pytest.mark.usefixtures("taken_for_lost")
def test_a_pending_run_whose_template_is_wrong_is_reported(pool):
    run = pool.submit("sleep 100", lease="soon")
    pool.set_state(run, Pending())

    async def scenario(worker):
        await worker.sync_with_backend()
        return await soon(lambda: ended(pool, run))

    found = pool.perform(scenario)
    assert found.state.type == StateType.CRASHED
    assert "lease" in found.state.message


def test_a_running_flow_whose_sandbox_ended_without_a_worker_is_reported(pool, emulator):
    run = pool.submit(state("RUNNING"), "sleep 100")

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running() and pool.run(run).infrastructure_pid)

    pool.perform_and_die(first)
    emulator.kill_sandbox(pool.live(run)[0].id)
    assert pool.end_of(run, name="another").state.type == StateType.CRASHED


@pytest.mark.usefixtures("taken_for_lost")
def test_a_pending_run_whose_worker_died_before_its_sandbox_is_submitted(pool):
    run = pool.submit(state("RUNNING"), state("COMPLETED"))
    pool.set_state(run, Pending())

    async def scenario(worker):
        await worker.sync_with_backend()
        return await soon(lambda: ended(pool, run))

    found = pool.perform(scenario)
    assert found.state.type == StateType.COMPLETED
    assert found.infrastructure_pid == pool.instances(run)[0].id


@pytest.mark.usefixtures("taken_for_lost")
def test_a_run_that_was_cancelled_before_its_worker_died_without_a_sandbox_is_cancelled(pool):
    run = pool.submit(state("RUNNING"), state("COMPLETED"))
    pool.set_state(run, Pending())
    pool.set_state(run, Cancelling())

    async def scenario(worker):
        await worker.sync_with_backend()
        return await soon(lambda: ended(pool, run))

    assert pool.perform(scenario).state.type == StateType.CANCELLED
    assert pool.instances(run) == []


def test_two_workers_that_submit_the_same_attempt_start_one_sandbox_and_one_process(pool):
    run = pool.submit("echo x >> runs", "sleep 1", state("RUNNING"), "sleep 1", state("COMPLETED"))
    pool.set_state(run, Pending())

    async def scenario(worker):
        flow_run = pool.run(run)
        configuration = await configuration_of(flow_run, worker)
        sandboxes = [worker._sandbox(flow_run, configuration, 1) for _ in range(2)]
        ids = await asyncio.gather(*(asyncio.to_thread(one.open) for one in sandboxes))
        results = await asyncio.gather(*(asyncio.to_thread(one.execute) for one in sandboxes))
        runs = await asyncio.to_thread(sandboxes[0]._leased.plane.plane.read, "runs")
        for one in sandboxes:
            await asyncio.to_thread(one.end)
        return ids, results, runs

    ids, results, runs = pool.perform(scenario)
    assert len(set(ids)) == 1
    assert [one.exit_code for one in results] == [0, 0]
    assert runs == b"x\n"
