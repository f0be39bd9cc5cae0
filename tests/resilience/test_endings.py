"""What happens to a sandbox, by the ending of its flow."""

import signal
import subprocess
import sys

import pytest
from prefect import flow
from prefect.client.schemas.objects import StateType

from ags_flows import sandbox_session
from ags_flows.cloud.data_planes import open_plane
from ags_flows.models import ToolSpec

TOOL = ToolSpec(name="ends", image="python:3.11")


def failing(config, **options):
    """A flow whose block raises; returns the id of its sandbox."""
    ids = []

    @flow
    def fails():
        with sandbox_session(TOOL, config=config, **options) as sandbox:
            ids.append(sandbox.instance.id)
            sandbox.run("echo evidence > left")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fails()
    return ids[0]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("on_failure", "states"), [("stop", {"STOPPING", "STOPPED"}), ("keep", {"RUNNING"}), ("pause", {"PAUSED"})]
)
def test_a_failed_runs_sandbox_is_stopped_kept_or_paused(ags_config, caplog, on_failure, states):
    instance = failing(ags_config, on_failure=on_failure)
    assert ags_config.control_plane().get_instance(instance).status in states
    if on_failure == "keep":
        assert f"ags-flows exec {instance}" in caplog.text


@pytest.mark.usefixtures("prefect_server")
def test_a_cleanup_that_fails_does_not_fail_the_run_and_is_logged(ags_emulator, ags_config, caplog):
    @flow
    def succeeds():
        with sandbox_session(TOOL, config=ags_config) as sandbox:
            sandbox.run("true", check=True)
            ags_emulator.fault("error", "StopSandboxInstance", times=None, code="InvalidParameter", message="no")
        return "done"

    assert succeeds() == "done"
    assert "left to the lease" in caplog.text


POOLED_SCRIPT = """
import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner
from ags_flows import in_sandbox, sandbox_session
from ags_flows.models import ToolSpec

def measure(number):
    with sandbox_session(ToolSpec(name="interrupted", image="python:3.11")) as sandbox:
        sandbox.run("echo 1 > counted; sleep 600")

@flow
def counting():
    measure(1)

@flow
def mapped():
    task(measure).map([1, 2]).result()

@task
def between(number):
    # The signal comes between two steps.
    for _ in range(2):
        with sandbox_session(ToolSpec(name="interrupted", image="python:3.11")) as sandbox:
            sandbox.run("echo 1 > counted")
            time.sleep(4)
            sandbox.run("sleep 600")

@flow
def steps():
    between.map([1, 2]).result()

@task
def cell(number):
    with sandbox_session("code-interpreter-v1") as sandbox:
        sandbox.run("echo 1 > counted")
        sandbox.run_code("import time; time.sleep(600)")

@flow
def cells():
    cell.map([1, 2]).result()

@flow
def inner():
    measure(1)

@flow(timeout_seconds=20)
def outer():
    inner()

@flow(timeout_seconds=20)
def limited():
    task(measure).map([1, 2]).result()

@flow
def threads():
    with ThreadPoolExecutor(2) as pool:
        for number in (1, 2):
            pool.submit(copy_context().run, measure, number)

@flow
async def blocked():
    # The event loop is blocked: asyncio only counts the signal.
    task(measure).map([1, 2]).result()

@flow
def outlived():
    # These threads go on after the main thread has ended, and Prefect starts no task runs any more.
    for number in (1, 2):
        Thread(target=copy_context().run, args=(measure, number)).start()
    time.sleep(600)

@task(retries=3)
def repeated(number):
    measure(number)

@flow(timeout_seconds=40, task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled():
    repeated.map([1, 2]).result()

async def measure_async(number):
    async with sandbox_session(ToolSpec(name="interrupted", image="python:3.11")) as sandbox:
        await sandbox.run("echo 1 > counted; sleep 600")

@flow(timeout_seconds=20)
async def gathered():
    await asyncio.gather(*(measure_async(number) for number in (1, 2)))

@in_sandbox(tool=ToolSpec(name="called", image="python:3.11"))
def call(number: int) -> None:
    import pathlib, time
    pathlib.Path("~/counted").expanduser().write_text("1")
    time.sleep(600)

@flow
def calls():
    call.map([1, 2]).result()

@flow(timeout_seconds=20)
def limited_calls():
    call.map([1, 2]).result()

if __name__ == "__main__":
    chosen = globals()[sys.argv[1]]
    asyncio.run(chosen()) if chosen.isasync else chosen()
"""

LIMITED = ("limited", "outer", "gathered", "limited_calls", "pooled")
"""Flows that their time limit ends. A Ctrl-C ends the others."""


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.xdist_group("stage")
@pytest.mark.parametrize(
    "flow",
    [
        "threads",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in (
                *("limited", "counting", "steps", "mapped", "cells", "outer", "blocked", "outlived", "gathered"),
                *("calls", "limited_calls", "pooled"),
            )
        ),
    ],
)
def test_ctrl_c_and_a_time_limit_stop_all_sandboxes_and_delete_the_tool(stage, flow, tmp_path):
    script = tmp_path / "flows.py"
    script.write_text(POOLED_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, flow],
        env=stage.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    before = {one.id for one in stage.control.list_instances()}

    def working():
        mine = [one for one in stage.live() if one.tool_name.startswith(("interrupted", "called", "code-interpreter"))]
        return len(mine) == (1 if flow in ("counting", "outer") else 2) and all(stage.counted(one) for one in mine)

    try:
        stage.wait_until(working, 90)
        if flow not in LIMITED:
            process.send_signal(signal.SIGINT)
        stage.wait_until(lambda: not stage.live(), 60)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    # No retry of a task started a sandbox.
    started = {one.id for one in stage.control.list_instances()} - before
    assert len(started) == (1 if flow in ("counting", "outer") else 2)
    assert not [tool for tool in stage.tools() if tool.startswith("interrupted")]


ASYNC_SCRIPT = """
import asyncio, sys
from prefect import flow
from ags_flows import sandbox_session
from ags_flows.models import ToolSpec

@flow
async def nightly(tool):
    with sandbox_session(ToolSpec(name=tool, image="python:3.11")) as sandbox:
        sandbox.start("echo 1 > counted; sleep 600")
        print(sandbox.instance.id, flush=True)
        # asyncio sets no wake-up descriptor: a signal between two polls of the loop is noticed at the next one.
        for _ in range(1200):
            await asyncio.sleep(0.1)

asyncio.run(nightly(sys.argv[1]))
"""

AWAITING_SCRIPT = """
import asyncio, sys
from prefect import flow
from ags_flows import sandbox_session
from ags_flows.models import ToolSpec

@flow
async def nightly(tool):
    async with sandbox_session(ToolSpec(name=tool, image="python:3.11")) as sandbox:
        print(sandbox.instance.id, flush=True)
        following = asyncio.create_task(sandbox.run("echo 1 > counted; sleep 600"))
        # asyncio sets no wake-up descriptor: a signal between two polls of the loop is noticed at the next one.
        for _ in range(1200):
            await asyncio.sleep(0.1)
        await following

asyncio.run(nightly(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.xdist_group("stage")
@pytest.mark.parametrize(
    ("number", "states"),
    [
        (signal.SIGTERM, {"RUNNING"}),
        pytest.param(
            signal.SIGINT,
            {"STOPPING", "STOPPED"},
            marks=[
                pytest.mark.long,
                pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio does not cancel the main task"),
            ],
        ),
    ],
    ids=["SIGTERM", "SIGINT"],
)
@pytest.mark.parametrize(
    "script", [pytest.param(ASYNC_SCRIPT, id="with", marks=pytest.mark.long), pytest.param(AWAITING_SCRIPT, id="async")]
)
def test_an_async_flow_leaves_its_sandbox_to_a_retry_after_a_sigterm_and_stops_it_after_ctrl_c(
    stage, script, number, states
):
    command = [sys.executable, "-c", script, f"async-{number.name}".lower()]
    process = subprocess.Popen(
        command, env=stage.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        instance = process.stdout.readline().strip()
        assert instance
        stage.wait_until(lambda: stage.counted(stage.control.get_instance(instance)), 30)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    known = stage.control.get_instance(instance)
    assert known.status in states
    if number is signal.SIGTERM:
        assert open_plane(stage.config.connection(), instance).plane.run("pgrep -xf 'sleep 600'").exit_code == 0
    stage.control.stop_instance(instance)
    for name in stage.tools():
        stage.delete_tool(name)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.xdist_group("stage")
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_crash_stops_the_sandbox_of_a_run_without_retries(stage, number):
    tool = {"name": f"unretried-{number.name}", "image": "python:3.11"}
    run = stage.start("provision-and-run", command="echo 1 > counted; sleep 1000", tool=tool, on_crash="stop")
    instance = stage.sandbox(run)
    stage.wait_until(lambda: stage.counted(instance), 30)
    stage.kill(run, number)
    assert stage.ended(run).type is StateType.CRASHED
    # A STOPPING instance takes no more work, but its tool is still in use.
    stage.wait_until(lambda: stage.control.get_instance(instance.id).status == "STOPPED", 15)
    for name in stage.tools():
        stage.delete_tool(name)
