"""The worker: every end of a flow run ends its sandbox, and nothing runs twice or is lost."""

import asyncio
import itertools
import json
import logging
import time

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled, Cancelling, Pending, Scheduled

from ags_flows.ownership import KEPT
from ags_flows.worker.configurations import configuration_of
from ags_flows.worker.job import FlowRunSandbox
from ags_flows.worker.reports import report_crashed
from ags_flows.worker.runs import show_waiting
from tests.worker.conftest import ended, soon, state

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect leaves sockets to the garbage collector when an event loop ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_flow_run_has_a_separate_sandbox_and_its_id_and_leaves_nothing(pool):
    runs = [pool.submit(state("RUNNING"), "sleep 0.2", state("COMPLETED")) for _ in range(3)]

    async def scenario(worker):
        return [await soon(lambda run=run: ended(pool, run)) for run in runs]

    found = pool.perform(scenario)
    assert [run.state.type for run in found] == [StateType.COMPLETED] * 3
    pids = [run.infrastructure_pid for run in found]
    assert len(set(pids)) == 3
    assert {one.id for one in pool.instances()} == set(pids)
    assert {one.metadata["work-pool"] for one in pool.instances()} == {pool.name}


def test_a_process_that_ends_without_a_final_state_is_crashed_with_its_last_lines(pool):
    run = pool.submit(state("RUNNING"), "echo the last words >&2", "exit 7")
    found = pool.end_of(run)
    assert found.state.type == StateType.CRASHED
    assert "exit code 7" in found.state.message
    assert "the last words" in found.state.message
    assert found.infrastructure_pid in found.state.message


@pytest.mark.parametrize("kind", ["FAILED", "COMPLETED"])
def test_the_last_lines_of_a_failed_flow_are_in_the_log_of_the_worker(pool, kind):
    run = pool.submit(state("RUNNING"), "echo the last words >&2", state(kind))
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())

    async def scenario(worker):
        logger = logging.getLogger(worker._logger.name)
        logger.addHandler(handler)
        try:
            return await soon(lambda: not worker._active and ended(pool, run))
        finally:
            logger.removeHandler(handler)

    found = pool.perform(scenario)
    about = [one for one in records if "the last words" in one]
    assert len(about) == (kind == "FAILED")
    assert all(found.infrastructure_pid in one and str(run) in one for one in about)


def test_an_error_that_is_not_expected_ends_in_a_reported_state_and_leaves_no_sandbox(pool, monkeypatch):
    def broken(sandbox):
        raise RuntimeError("not expected")

    monkeypatch.setattr(FlowRunSandbox, "execute", broken)
    run = pool.submit(state("RUNNING"), "sleep 100")
    found = pool.end_of(run)
    assert found.state.type == StateType.CRASHED
    assert "RuntimeError: not expected" in found.state.message


def test_a_retry_that_begins_as_soon_as_a_crash_is_reported_is_not_overwritten(pool, monkeypatch):
    run = pool.submit("exit 7")

    async def report_and_retry(*reported):
        # As a fast automation does.
        await report_crashed(*reported)
        if len(pool.instances(run)) == 1:
            pool.set_state(run, Scheduled(name="AwaitingRetry"))

    async def scenario(worker):
        monkeypatch.setattr("ags_flows.worker.worker.report_crashed", report_and_retry)
        await soon(lambda: len(pool.instances(run)) == 2)
        return await soon(lambda: ended(pool, run))

    assert pool.perform(scenario).state.type == StateType.CRASHED


def test_a_sandbox_that_dies_is_reported_as_crashed_and_a_retry_gets_another_one(pool, emulator):
    run = pool.submit(state("RUNNING"), "sleep 60")

    async def scenario(worker):
        await soon(lambda: pool.run(run).state.is_running())
        first = pool.live(run)[0].id
        began = time.monotonic()
        emulator.kill_sandbox(first)
        crashed = await soon(lambda: ended(pool, run))
        took = time.monotonic() - began
        pool.set_state(run, Scheduled(name="AwaitingRetry"), force=True)
        await soon(lambda: pool.run(run).state.is_running() and pool.live(run))
        second = pool.live(run)[0].id
        pool.set_state(run, Cancelling(), force=True)
        await soon(lambda: ended(pool, run))
        return crashed, took, first, second

    crashed, took, first, second = pool.perform(scenario)
    assert crashed.state.type == StateType.CRASHED
    assert first in crashed.state.message
    assert took < 15
    assert first != second


# The UI and `prefect flow-run cancel` set the state without force; Prefect cancels a run without infrastructure itself.
@pytest.mark.parametrize(
    ("when", "force"),
    [
        ("running", False),
        *(
            pytest.param(when, force, marks=pytest.mark.long)
            for when, force in itertools.product(["pending", "starting", "running"], [True, False])
            if (when, force) != ("running", False)
        ),
    ],
)
def test_a_cancelled_run_loses_its_sandbox_within_ten_seconds(pool, emulator, when, force):
    if when == "starting":
        emulator.transition("instance.start", "seconds", 60)
    running = [state("RUNNING")] if when == "running" else []
    run = pool.submit(*running, "sleep 100")

    async def scenario(worker):
        await soon(lambda: pool.live(run))
        if when != "starting":
            await soon(lambda: pool.run(run).infrastructure_pid)
        if when == "running":
            await soon(lambda: pool.run(run).state.is_running())
        pool.set_state(run, Cancelling(), force=force)
        began = time.monotonic()
        found = await soon(lambda: ended(pool, run))
        return found, time.monotonic() - began

    found, took = pool.perform(scenario)
    assert found.state.type == StateType.CANCELLED
    assert took < 12


@pytest.mark.long
@pytest.mark.parametrize("when", ["running", "starting"])
def test_a_run_that_is_deleted_loses_its_sandbox_and_the_others_go_on(pool, emulator, when):
    other = pool.submit(state("RUNNING"), "while [ ! -e go ]; do sleep 0.1; done", state("COMPLETED"))

    async def scenario(worker):
        await soon(lambda: pool.run(other).state.is_running())
        if when == "starting":
            emulator.transition("instance.start", "seconds", 60)
        run = pool.submit(state("RUNNING"), "sleep 100")
        await soon(lambda: pool.live(run))
        if when == "running":
            await soon(lambda: pool.run(run).state.is_running())
        await worker.client.delete_flow_run(run)
        began = time.monotonic()
        await soon(lambda: not pool.live(run))
        took = time.monotonic() - began
        await soon(lambda: run not in worker._active)
        plane = worker._active[other]._leased.plane.plane
        await asyncio.to_thread(plane.write, "go", "")
        return took, await soon(lambda: ended(pool, other))

    took, found = pool.perform(scenario)
    assert took < 12
    assert found.state.type == StateType.COMPLETED


def test_a_reason_to_wait_does_not_overwrite_a_cancellation(pool, monkeypatch):
    run = pool.submit("sleep 100")
    pool.set_state(run, Pending())
    show_waiting(run, "quota")
    assert pool.run(run).state.message == "Waiting for a sandbox: quota"
    request = SyncPrefectClient.set_flow_run_state

    def overtaken(client, *args, **options):
        # The cancellation comes just before.
        request(client, run, Cancelling(), force=True)
        return request(client, *args, **options)

    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", overtaken)
    show_waiting(run, "rate limit")
    assert pool.run(run).state.type == StateType.CANCELLING


def test_a_run_that_was_cancelled_while_no_worker_was_there_loses_its_sandbox(pool):
    run = pool.submit(state("RUNNING"), "sleep 100")

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running())

    pool.perform_and_die(first)
    assert pool.live(run)
    pool.set_state(run, Cancelled(), force=True)

    async def second(worker):
        return await soon(lambda: not pool.live(run))

    assert pool.perform(second, name="another")


@pytest.mark.long
def test_credentials_of_the_prefect_server_are_masked_in_the_last_lines(pool):
    run = pool.submit(
        state("RUNNING"), "echo $PREFECT_API_KEY >&2", "exit 7", env={"PREFECT_API_KEY": "pnu_0123456789abc"}
    )
    message = pool.end_of(run).state.message
    assert "********" in message and "pnu_0123456789abc" not in message


@pytest.mark.long
def test_a_submission_waits_for_the_quota_and_shows_it_in_the_state(pool, emulator):
    emulator.limits(quotas=True, instances=1)
    first = pool.submit(state("RUNNING"), "while [ ! -e go ]; do sleep 0.1; done", state("COMPLETED"))

    async def scenario(worker):
        await soon(lambda: pool.run(first).state.is_running())
        second = pool.submit(state("RUNNING"), state("COMPLETED"))
        waiting = await soon(lambda: (found := pool.run(second).state).message and found)
        plane = worker._active[first]._leased.plane.plane
        await asyncio.to_thread(plane.write, "go", "")
        return waiting, await soon(lambda: ended(pool, second))

    waiting, done = pool.perform(scenario)
    assert waiting.type == StateType.PENDING and "Waiting for a sandbox" in waiting.message
    assert done.state.type == StateType.COMPLETED


BAD = [
    ({"api_url": "http://127.0.0.1:9/api"}, "cannot reach the Prefect API at http://127.0.0.1:9/api"),
    ({"network": "SANDBOX"}, "cannot reach the Prefect API"),
    ({"image": "python:3.11"}, "lacks the command prefect"),
    ({"image": None}, "names no image and no tool"),
    ({"tool": "base"}, "image and tool"),
    ({"memory": "much"}, "The job configuration is not valid: memory: "),
    ({"image": None, "tool": "missing"}, "missing"),
    ({"secrets": {"A": "no-such-block"}}, "no Secret block named 'no-such-block'"),
    ({"uploads": {"/no/such/file": "x"}}, "uploads: there is no '/no/such/file'"),
]


@pytest.mark.long
def test_a_template_that_cannot_work_is_named_in_the_state_and_leaves_no_sandbox(pool):
    runs = [pool.submit("sleep 100", **variables) for variables, _ in BAD]

    async def scenario(worker):
        return [await soon(lambda run=run: ended(pool, run)) for run in runs]

    for (variables, reason), found in zip(BAD, pool.perform(scenario), strict=True):
        assert found.state.type == StateType.CRASHED and reason in found.state.message, variables


@pytest.mark.long
def test_a_time_limit_ends_the_run(pool):
    run = pool.submit(state("RUNNING"), "sleep 100", timeout=1)
    found = pool.end_of(run)
    assert found.state.type == StateType.CRASHED
    assert "limit of 1 s" in found.state.message and "the variable timeout." in found.state.message


def test_the_sandbox_of_a_failed_run_is_kept_where_that_is_asked_for(pool):
    run = pool.submit(state("RUNNING"), state("FAILED"), keep_on_failure=True)

    async def scenario(worker):
        await soon(lambda: pool.live(run) and pool.live(run)[0].metadata.get(KEPT))
        await soon(lambda: run not in worker._active)
        await worker._recover()
        return pool.live(run)

    assert [one.metadata[KEPT] for one in pool.perform(scenario)] == ["keep"]


def test_a_run_whose_worker_died_after_its_sandbox_was_kept_is_reported(pool):
    run = pool.submit(state("RUNNING"), "sleep 100", keep_on_failure=True)

    async def first(worker):
        await soon(lambda: pool.run(run).state.is_running() and pool.run(run).infrastructure_pid)

    pool.perform_and_die(first)
    pool.control.update_instance(pool.live(run)[0].id, metadata={KEPT: "keep"})

    async def second(worker):
        return await soon(lambda: pool.run(run).state.is_final() and pool.run(run))

    assert pool.perform(second, name="another").state.type == StateType.CRASHED
    assert pool.live(run)


def test_secrets_reach_the_process_alone_and_nothing_of_the_worker_does(pool, monkeypatch, tmp_path):
    for number, name in enumerate(("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")):
        monkeypatch.setenv(name, f"key-number-{number}-of-the-worker")
    monkeypatch.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-Token": "header-of-the-worker"}')
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "WARNING")
    monkeypatch.setenv("OWN_VARIABLE", "of the worker")
    Secret(value="secret-of-the-template").save("for-the-worker", overwrite=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print(1)\n")
    pool.set_default("env", {"A": "pool", "B": "pool", "C": "pool"})
    deployment = pool.deploy(
        command=f"env > seen; {state('RUNNING')} && sleep 100",
        env={"A": "deployment", "B": "deployment"},
        secrets={"TOKEN": "for-the-worker"},
        uploads={str(tmp_path / "code"): "code"},
    )
    run = pool.submit(deployment=deployment, run_variables={"env": {"B": "run"}})

    async def scenario(worker):
        await soon(lambda: pool.run(run).state.is_running())
        sandbox = worker._active[run]
        plane, instance = sandbox._leased.plane.plane, sandbox.instance
        seen = (await asyncio.to_thread(plane.read, "seen")).decode()
        code = await asyncio.to_thread(plane.read, "code/main.py")
        outside = await asyncio.to_thread(plane.run, "ps -ef; cat ~/.ags_flows/*/journal/*/cmd", user="root")
        described = pool.control.call("DescribeSandboxInstanceList", {"InstanceIds": [instance.id]})
        with get_client(sync_client=True) as client:
            logs = [one.message for one in client.read_logs()]
        pool.set_state(run, Cancelling(), force=True)
        await soon(lambda: ended(pool, run))
        return (
            dict(line.split("=", 1) for line in seen.splitlines() if "=" in line),
            code,
            outside.stdout,
            described,
            logs,
        )

    seen, code, outside, described, logs = pool.perform(scenario)
    assert (seen["A"], seen["B"], seen["C"]) == ("deployment", "run", "pool")
    assert seen["TOKEN"] == "secret-of-the-template"
    assert "header-of-the-worker" in seen["PREFECT_CLIENT_CUSTOM_HEADERS"]
    assert seen["PREFECT__FLOW_RUN_ID"] == str(run)
    assert not {"PREFECT_LOGGING_LEVEL", "OWN_VARIABLE", "PREFECT_HOME", "AGS_ENDPOINT"} & set(seen)
    assert code == b"print(1)\n"
    for place in (outside, json.dumps(described), "\n".join(logs)):
        assert "secret-of-the-template" not in place
        assert "of-the-worker" not in place


@pytest.mark.long
def test_a_stop_that_fails_is_repeated_and_a_start_whose_response_is_lost_is_stopped_with_its_run(pool, emulator):
    emulator.fault("error", "StopSandboxInstance", code="InternalError", message="oops", times=2)
    emulator.transition("instance.start", "seconds", 60)
    emulator.fault("lost", "StartSandboxInstance")
    run = pool.submit("sleep 100")

    async def scenario(worker):
        await soon(lambda: pool.live(run))
        pool.set_state(run, Cancelling())
        return await soon(lambda: ended(pool, run))

    assert pool.perform(scenario).state.type == StateType.CANCELLED
    assert len(pool.instances(run)) == 1


def test_kill_infrastructure_stops_the_sandbox_and_reports_when_there_is_none(pool):
    from prefect.exceptions import InfrastructureNotFound

    run = pool.submit(state("RUNNING"), "sleep 100")

    async def scenario(worker):
        await soon(lambda: pool.run(run).state.is_running())
        configuration = await configuration_of(pool.run(run), worker)
        pid = pool.live(run)[0].id
        await worker.kill_infrastructure(pid, configuration)
        found = await soon(lambda: ended(pool, run))
        for gone in (pid, "0" * 32):
            with pytest.raises(InfrastructureNotFound):
                await worker.kill_infrastructure(gone, configuration)
        return found

    assert pool.perform(scenario).state.type == StateType.CRASHED
