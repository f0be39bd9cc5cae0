"""Parallel executions of one run in several processes: nothing is shared, and retries find what they began."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import State

from ags_flows.cloud.data_planes import open_plane
from ags_flows.demo.servers import end
from ags_flows.errors import AGSFlowsError
from ags_flows.ownership import Holder

WORK = Path(__file__).with_name("work.py")
NAMES = ["pears", "plums"]
FINAL = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def environment(ags_emulator):
    """The environment of other processes of the same Prefect server and the same emulator."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **inherited,
        **ags_emulator.environment,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(PREFECT_HOME.value()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": os.pathsep.join([str(WORK.parent), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.fixture
def process(environment, tmp_path):
    """Return a function that starts a Python process, whose log is shown when a test fails; all are ended."""
    started = []

    def start(*arguments):
        log = tmp_path / f"process-{len(started)}.log"
        with log.open("wb") as output:
            made = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(made)
        return made

    yield start
    for one in started:
        end(one, signal.SIGINT)
    for log in sorted(tmp_path.glob("process-*.log")):
        print(log.read_text()[-6000:])


@pytest.fixture
def noted(tmp_path):
    """Return a function that waits for a number of notes of an execution, and returns them."""

    def read(name, times=1):
        path = tmp_path / f"{name}.json"

        def enough():
            found = json.loads(path.read_text() or "[]") if path.exists() else []
            return found if len(found) >= times else None

        return wait_until(enough, 90)

    return read


def wait_until(condition, timeout):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def check(noted, live):
    """Each had a separate sandbox, ran both commands once, and left nothing."""
    found = [noted(name)[-1] for name in NAMES]
    assert [one["count"] for one in found] == [2, 2]
    assert found[0]["instance"] != found[1]["instance"]
    wait_until(lambda: live() == [], 30)


@pytest.mark.parametrize(
    "call",
    [
        "pooled",
        pytest.param("forking", marks=pytest.mark.long),
        pytest.param(
            "on_dask()",
            marks=[
                pytest.mark.long,
                pytest.mark.skipif(not importlib.util.find_spec("prefect_dask"), reason="prefect-dask is missing"),
            ],
        ),
    ],
)
def test_parallel_processes_of_one_run_never_share(process, noted, live, tmp_path, call):
    code = f"import work\nif __name__ == '__main__': work.{call}({str(tmp_path)!r}, {NAMES!r})"
    script = tmp_path / "run.py"
    script.write_text(code)
    assert process(str(script)).wait(120) == 0
    check(noted, live)


@pytest.mark.long
@pytest.mark.parametrize("inner", ["subflow", "task"])
def test_a_retry_finds_what_tasks_in_a_process_pool_did_in_the_sandbox_of_the_run(process, noted, tmp_path, inner):
    assert process("-c", f"import work; work.nesting({str(tmp_path)!r}, ['pears'], {inner!r})").wait(120) == 0
    assert noted("nesting")[0]["ran"] == ["pears"]


def test_an_item_that_was_begun_is_found_although_the_list_of_items_has_grown(process, ags_config, live, tmp_path):
    results = str(tmp_path / "results")
    first = process("-c", f"import work; work.batch({results!r}, ['m'])")
    sandbox = wait_until(lambda: begun_in(ags_config, live()), 60)
    first.kill()
    first.wait()
    sandbox.write("go", b"")
    assert process("-c", f"import work; work.batch({results!r}, ['a', 'm'])").wait(90) == 0
    lines = [json.loads(line) for line in Path(results, "results.jsonl").read_text().splitlines()]
    assert {line["key"]: line["stdout"].split().count("m") for line in lines} == {"a": 1, "m": 1}
    assert live() == []


def begun_in(config, instances):
    """Return the data plane of the sandbox in which an item was begun, None if there is none yet."""
    for instance in instances:
        plane = open_plane(config.connection(), instance).plane
        with contextlib.suppress(AGSFlowsError):
            plane.stat("begun")
            return plane
    return None


@pytest.mark.long
def test_children_of_run_deployment_never_share_and_a_killed_one_finds_its_sandbox(process, noted, live, tmp_path):
    process(str(WORK), "flows")
    with get_client(sync_client=True) as client:
        parent = wait_until(lambda: deployment(client, "parent/composed"), 60)
        parameters = {"directory": str(tmp_path), "names": NAMES, "die": "plums"}
        client.create_flow_run_from_deployment(parent.id, parameters=parameters)
        runs = {name: noted(f"{name}.run")[0]["id"] for name in NAMES}
        noted("plums")
        wait_until(lambda: client.read_flow_run(runs["plums"]).state.type is StateType.CRASHED, 60)
        retried = State(type=StateType.SCHEDULED, name="AwaitingRetry")
        client.set_flow_run_state(runs["plums"], retried, force=False)
        first, again = noted("plums", times=2)
        for run in runs.values():
            wait_until(lambda: client.read_flow_run(run).state.type is StateType.COMPLETED, 60)  # noqa: B023
    assert first == again
    check(noted, live)


def deployment(client, name):
    try:
        found = client.read_deployment_by_name(name)
    except Exception:  # noqa: BLE001 - it is not there yet
        return None
    return found if found.status == "READY" else None


@pytest.mark.long
def test_background_tasks_never_share_and_their_retries_find_what_they_began(
    process, noted, live, tmp_path, environment
):
    process(str(WORK), "tasks")
    alone, inside = tmp_path, tmp_path / "inside"
    inside.mkdir()
    code = (
        "import work\n"
        f"for name in {NAMES!r}: work.in_background.delay({str(alone)!r}, name, {NAMES!r})\n"
        f"print(work.delaying({str(inside)!r}, {NAMES!r}))"
    )
    assert process("-c", code).wait(90) == 0
    check(noted, live)
    found = [noted(name)[-1] for name in NAMES] + [noted(f"inside/{name}")[-1] for name in NAMES]
    assert [one["count"] for one in found] == [2] * 4
    assert len({one["instance"] for one in found}) == 4
    assert [one["instance"] for one in found] == [one["first"] for one in found]
    holders = [Holder.parse(one["holder"]) for one in found]
    assert [[frame.kind for frame in holder.frames] for holder in holders] == [["task", "call"]] * 2 + [
        ["flow", "task", "call"]
    ] * 2
    wait_until(lambda: live() == [], 30)


@pytest.mark.long
def test_a_background_task_goes_on_after_the_flow_that_started_it_whatever_its_time_limit(
    process, noted, live, tmp_path
):
    process(str(WORK), "tasks")
    assert process("-c", f"import work; work.limited({str(tmp_path)!r}, 'one')").wait(90) == 0
    assert noted("one")[-1]["slept"] == "slept\n"
    wait_until(lambda: live() == [], 30)
