"""Sessions, tasks and jobs in asynchronous code: the event loop goes on, and a cancellation ends what was awaited."""

import asyncio
import contextlib
import gc
import time

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import Pause
from prefect.runtime import flow_run
from prefect.states import Suspended

from ags_flows import SandboxJob, awaitable, sandbox_session
from ags_flows.errors import CommandFailedError, NotFoundError
from ags_flows.flows import provision_and_run
from ags_flows.job.page import ARTIFACT
from ags_flows.models import ToolSpec
from ags_flows.ownership import KEPT, LIVE
from ags_flows.run.outcome import ending_of
from ags_flows.session import AsyncSandboxSession, SandboxSession
from ags_flows.tasks import exec_command

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect leaves a socket to the garbage collector when the event loop of an async flow ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

BEAT = 0.05
LONGEST_GAP = 1.0
"""Seconds between two turns of the event loop on a busy machine. A call that blocks the loop takes two at least."""


@pytest.fixture(autouse=True)
def quick_tools(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")
    yield
    # Here the warning of an unclosed socket is ignored, in the test that comes next it is not.
    gc.collect()


@contextlib.asynccontextmanager
async def heartbeat():
    """Measure the longest time for which the event loop did not turn."""
    gaps = [0.0]

    async def beat():
        last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    beating = asyncio.create_task(beat())
    try:
        yield gaps
    finally:
        beating.cancel()


def live(config):
    return [one for one in config.control_plane().list_instances() if one.status in LIVE]


def processes(sandbox, words):
    return int(sandbox.run(f"pgrep -xfc '{words}' || true", durable=False).stdout)


def test_the_event_loop_keeps_its_rhythm_beside_everything_that_is_awaited(ags_config, tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(50):
        (tmp_path / "many" / str(number)).write_bytes(b"x" * 10_000)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 40_000)

    @flow
    async def nightly():
        async with heartbeat() as gaps:
            async with sandbox_session("code-interpreter-v1", config=ags_config) as sandbox:
                await asyncio.gather(
                    sandbox.run("sleep 2"),
                    sandbox.upload(tmp_path / "large", "large"),
                    sandbox.upload(tmp_path / "many", "many"),
                    sandbox.run_code("import time; time.sleep(2)"),
                    exec_command.aio(sandbox.instance, "sleep 2", step="task", config=ags_config),
                )
                await sandbox.download("large", tmp_path / "copy")
                names = [one.name for one in await sandbox.list("many")]
                owner = sandbox.instance.metadata["flow-run-id"]
            job = SandboxJob(command="sleep 2; echo done", tool="base", config=ags_config)
            run = await job.atrigger()
            await run.await_for_completion()
            report = await run.afetch_result()
        return gaps, names, owner == str(flow_run.id), report.result.stdout

    gaps, names, owned, said = asyncio.run(nightly())
    assert max(gaps) < LONGEST_GAP
    assert len(gaps) > 60
    assert len(names) == 50 and owned and said == "done\n"
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    assert not live(ags_config)


def test_a_flow_of_this_package_is_awaited_and_nested(ags_config):
    @flow
    async def nightly():
        async with heartbeat() as gaps:
            report = await awaitable(provision_and_run)("sleep 2; echo $((6 * 7))", tool="base", config=ags_config)
        return gaps, report.result.stdout

    gaps, said = asyncio.run(nightly())
    assert said == "42\n" and max(gaps) < LONGEST_GAP


def test_sessions_work_without_a_flow_and_errors_are_raised_where_they_are_awaited(ags_config):
    async def script():
        async with sandbox_session("base", config=ags_config) as sandbox:
            with pytest.raises(NotFoundError):
                await sandbox.read("nothing")
            with pytest.raises(CommandFailedError):
                await sandbox.run("exit 3", check=True)
            await sandbox.write("a", "b")
            assert await sandbox.read("a") == b"b"
            handle = await sandbox.start("sleep 60")
            await sandbox.kill(handle)
            assert sandbox.url(8000) and sandbox.steps and sandbox.tool and sandbox.place_key

    asyncio.run(script())
    assert not live(ags_config)


def test_a_session_whose_sandbox_cannot_be_started_raises_what_the_synchronous_one_raises(ags_config):
    async def script():
        async with sandbox_session("nothing-here", config=ags_config):
            raise AssertionError

    with pytest.raises(NotFoundError):
        asyncio.run(script())


def test_every_method_of_a_session_is_awaited_with_the_same_arguments():
    def public(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(SandboxSession) == public(AsyncSandboxSession) - {"instance", "steps", "tool"}
    for name in public(SandboxSession) - {"url", "place_key"}:
        assert asyncio.iscoroutinefunction(getattr(AsyncSandboxSession, name)), name
        assert getattr(AsyncSandboxSession, name).__doc__ == getattr(SandboxSession, name).__doc__


def test_a_task_with_other_options_is_awaited_too(ags_config):
    @flow
    async def nightly():
        async with sandbox_session("base", config=ags_config) as sandbox:
            return await exec_command.with_options(name="greet", retries=0).aio(
                sandbox.instance, "echo hello", config=ags_config
            )

    assert asyncio.run(nightly()).stdout == "hello\n"


def test_a_command_that_is_cancelled_is_killed_and_the_session_goes_on(ags_config):
    @flow
    async def nightly():
        async with sandbox_session("base", config=ags_config) as sandbox:
            started = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sandbox.run("sleep 5151"), 2)
            waited = time.monotonic() - started
            # The thread kills it after the coroutine has gone on.
            while await asyncio.to_thread(processes, sandbox.session, "sleep 5151"):
                await asyncio.sleep(0.1)
            return waited, (await sandbox.run("echo still here")).stdout

    waited, said = asyncio.run(nightly())
    assert waited < 3.5
    assert said == "still here\n"
    assert not live(ags_config)


@pytest.mark.parametrize("within", [lambda work: work, flow], ids=["script", "flow"])
@pytest.mark.parametrize("how", ["async with", "awaitable"])
def test_a_coroutine_that_is_cancelled_stops_its_sandbox(how, within, ags_config):
    seen = []

    def work():
        with sandbox_session("base", config=ags_config) as sandbox:
            seen.append(sandbox.instance.id)
            sandbox.run("sleep 600")

    async def awork():
        async with sandbox_session("base", config=ags_config) as sandbox:
            seen.append(sandbox.instance.id)
            await sandbox.run("sleep 600")

    async def nightly():
        working = asyncio.create_task(awork() if how == "async with" else awaitable(work)())
        while not seen:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        started = time.monotonic()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return time.monotonic() - started

    took = asyncio.run(within(nightly)())
    assert took < 10
    assert not live(ags_config)


def test_a_coroutine_that_is_cancelled_during_the_start_leaves_no_sandbox(ags_config, ags_emulator):
    ags_emulator.transition("instance.start", "never")

    async def script():
        async with sandbox_session("base", config=ags_config):
            raise AssertionError

    async def nightly():
        working = asyncio.create_task(script())
        while not live(ags_config):
            await asyncio.sleep(0.05)
        started = time.monotonic()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return time.monotonic() - started

    assert asyncio.run(nightly()) < 10
    assert not live(ags_config)


def test_a_failure_of_one_coroutine_stops_the_sandboxes_of_its_siblings(ags_config):
    """What `TaskGroup` does since Python 3.11."""

    async def fails(started):
        await started.wait()
        raise ValueError

    async def works(started):
        async with sandbox_session("base", config=ags_config) as sandbox:
            started.set()
            await sandbox.run("sleep 600")

    @flow
    async def nightly():
        started = asyncio.Event()
        working = [asyncio.create_task(works(started)), asyncio.create_task(fails(started))]
        await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
        working[0].cancel()
        await asyncio.gather(*working, return_exceptions=True)

    asyncio.run(nightly())
    assert not live(ags_config)


def test_a_coroutine_that_the_program_cancels_stops_the_sandbox_of_a_plain_with(ags_config):
    async def works(started):
        with sandbox_session("base", config=ags_config):
            started.set()
            await asyncio.sleep(600)

    @flow
    async def nightly():
        started = asyncio.Event()
        working = asyncio.create_task(works(started))
        await started.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(nightly())
    assert not live(ags_config)


def test_a_time_limit_of_the_flow_is_a_failure_and_no_crash(ags_config):
    @flow(timeout_seconds=4)
    async def limited():
        async with sandbox_session(
            ToolSpec(name="limited", image="python:3.11"), on_failure="keep", config=ags_config
        ) as sandbox:
            await sandbox.run("sleep 600")

    with pytest.raises(TimeoutError):
        asyncio.run(limited())
    (kept,) = live(ags_config)
    assert kept.metadata[KEPT] == "keep"


def test_an_error_that_no_signal_caused_is_not_a_crash():
    @flow
    async def nightly():
        return ending_of(asyncio.CancelledError(), in_coroutine=True)

    assert asyncio.run(nightly()) == "cancelled"


def test_a_run_that_is_suspended_has_its_sandbox_paused(ags_config):
    @flow
    async def asks():
        async with sandbox_session("base", config=ags_config):
            raise Pause(state=Suspended())

    with pytest.raises(Pause):
        asyncio.run(asks())
    (paused,) = live(ags_config)
    assert paused.status in ("PAUSING", "PAUSED")


def test_a_job_in_an_asynchronous_flow_reads_secrets_and_writes_its_report(ags_config, recwarn):
    Secret(value="a-quiet-word").save("of-a-job", overwrite=True)

    @flow
    async def nightly():
        job = SandboxJob(command="echo ${#WORD}", tool="base", secrets={"WORD": "of-a-job"}, config=ags_config)
        run = await job.atrigger()
        return (await run.afetch_result()).result.stdout, flow_run.id

    said, run = asyncio.run(nightly())
    gc.collect()
    assert said == "12\n" and not [one for one in recwarn if "never awaited" in str(one.message)]
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        assert [one.key for one in client.read_artifacts(artifact_filter=of_run)] == [ARTIFACT]


@pytest.mark.parametrize("within", [lambda work: work, flow], ids=["script", "flow"])
@pytest.mark.parametrize("how", ["await_for_completion", "afetch_result", "awaitable"])
def test_a_cancelled_wait_for_a_job_stops_its_sandbox(how, within, ags_config):
    async def nightly():
        job = SandboxJob(command="sleep 600", tool="base", config=ags_config)
        run = job.trigger() if how == "awaitable" else await job.atrigger()
        wait = awaitable(run.wait_for_completion) if how == "awaitable" else getattr(run, how)
        started = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 1)
        return time.monotonic() - started, live(ags_config)

    took, left = asyncio.run(within(nightly)())
    assert took < 10
    assert left == []
