"""Batches in shards, with a real Prefect server, and real processes that serve the shards."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    DeploymentFilter,
    DeploymentFilterId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import Completed, Crashed, Pending, Running

from ags_flows.batch import shards as module
from ags_flows.batch import storage as storages
from ags_flows.batch.items import read_items
from ags_flows.batch.slices import items_at, sliced
from ags_flows.batch.storage import ResultsError
from ags_flows.cloud.retry import Backoff
from ags_flows.demo.servers import end
from ags_flows.errors import ConfigurationError
from ags_flows.flows import run_batch, run_batch_shard, run_items
from ags_flows.flows.hooks import stop_sandboxes_if_asked
from ags_flows.ownership import FLOW_RUN, LIVE, MANAGED_BY, MANAGED_BY_KEY

SERVE = (
    "from prefect import serve; from ags_flows.flows import run_batch_shard as shard; "
    "serve(shard.to_deployment('machines'), limit=4)"
)
DEPLOYMENT = "run-batch-shard/machines"


@pytest.fixture
def served(ags_emulator, prefect_server, tmp_path):
    """Return a function that starts a process that executes shards; all are ended."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        **ags_emulator.environment,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(PREFECT_HOME.value()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    processes = []

    def start():
        log = (tmp_path / f"runner-{len(processes)}.log").open("wb")
        arguments = [sys.executable, "-c", SERVE]
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, start_new_session=True)
        log.close()
        processes.append(process)
        with get_client(sync_client=True) as client:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                with contextlib.suppress(Exception):
                    if client.read_deployment_by_name(DEPLOYMENT).status == "READY":
                        return process
                time.sleep(0.2)
        raise AssertionError("the shards are not served")

    yield start
    for process in processes:
        end(process, signal.SIGINT)
    for log in sorted(tmp_path.glob("runner-*.log")):
        print(log.read_text()[-6000:])


@pytest.fixture
def environment(ags_emulator, monkeypatch):
    """The environment names the account, as on a worker."""
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)


def live(config):
    return [one for one in config.control_plane().list_instances() if one.status in LIVE]


def lines(directory):
    return [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]


def finished(directory):
    """Return how many items each shard has recorded as done."""
    return [part.read_text().count('"result"') for part in directory.glob("shard-*/ledger-*")]


def sharded(directory, items, command, **more):
    options = {"results": str(directory), "shards": 2, "sandboxes": 2, "return_state": True, **more}
    return run_batch(items, command, "base", **options)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("what", ["an engine", "a machine"])
def test_a_shard_that_is_lost_is_executed_again_and_the_parent_merges_all(
    served, environment, ags_config, tmp_path, monkeypatch, what
):
    monkeypatch.setattr(module, "LOST_AFTER", 15.0)
    monkeypatch.setattr(module, "SETTLED", 3.0)
    first = served()
    items = [{"id": f"n{number}", "code": int(number == 7)} for number in range(12)]
    command = 'echo "$ITEM_ID" >> ran; sleep 1; echo "n$ITEM_INDEX"; sort ran | uniq -d; exit "$ITEM_CODE"'
    states = []
    batch = threading.Thread(target=lambda: states.append(sharded(tmp_path / "out", items, command)))
    batch.start()
    deadline = time.monotonic() + 120
    while len(done := finished(tmp_path / "out")) < 2 or 0 in done:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runs = {}
    for process in psutil.Process(first.pid).children(recursive=True):
        runs.setdefault(process.environ().get("PREFECT__FLOW_RUN_ID"), []).append(process)
    victims = [next(run for run in runs if run)] if what == "an engine" else list(runs)
    if what == "a machine":
        first.kill()
    for process in [one for run in victims for one in runs[run]]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if what == "a machine":
        served()
    batch.join()
    report = states[0].result()
    assert (report.items, report.succeeded, report.failed) == (12, 11, 1)
    assert [one.key for one in report.failures] == ["n7"]
    # Each item ran once in its sandbox, and the results stand in the order of the items.
    assert [line["stdout"] for line in lines(tmp_path / "out")] == [f"n{number}\n" for number in range(12)]
    assert [line["index"] for line in lines(tmp_path / "out")] == list(range(12))
    assert not live(ags_config)
    with get_client(sync_client=True) as client:
        ours = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[states[0].state_details.flow_run_id]),
            key=ArtifactFilterKey(like_="batch-%"),
        )
        keys = sorted(one.key for one in client.read_artifacts(artifact_filter=ours))
    assert keys == ["batch-progress", "batch-results"]
    assert report.resumed == 0
    # Those too that the lost executions of a shard had started; what they left is taken over.
    assert report.started == 2
    again = sharded(tmp_path / "out", items, command).result()
    assert (again.resumed, again.succeeded, again.failed) == (11, 11, 1)


def test_slices_hold_each_item_once_and_a_list_that_grows_leaves_items_where_they_are(tmp_path):
    few = read_items([f"item-{number}" for number in range(50)]).all
    more = read_items(["new", *(item.value for item in few)]).all
    first, second = sliced(few, 4, str(tmp_path)), sliced(more, 4, str(tmp_path))
    assert sorted(item.key for part in first for item in part.items) == sorted(item.key for item in few)
    where = {item.key: part.number for part in second for item in part.items}
    assert all(where[item.key] == part.number for part in first for item in part.items)
    # They keep their indexes in the whole list.
    assert all(more[item.index] is item for part in second for item in part.items)


def test_a_shard_reads_what_the_parent_wrote_and_no_file(tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a"
    file.write_text("x")
    for source in (tmp_path / "in", [{"id": "\u00e9", "$ref": {"a": [1, None]}}]):
        [part] = sliced(read_items(source).all, 1, str(tmp_path / "out"))
        part.write()
        file.unlink(missing_ok=True)
        found = items_at(part.location)
        assert (found.all, found.is_slice) == (part.items, True)
        assert [item.version for item in found.all] == [item.version for item in part.items]


def test_a_machine_that_does_not_share_the_results_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist on this machine"):
        items_at(str(tmp_path))


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"results": ""}, "results: a batch with shards needs a location"),
        ({"shards": -1}, "shards must be >= 1"),
        ({"shard_deployment": "run-batch-shard/nowhere"}, "'run-batch-shard/nowhere': the Prefect server has no such"),
        ({"shard_deployment": "provision-and-run/run-command"}, "not a deployment of the flow run-batch-shard"),
        ({"shard_deployment": "nonsense"}, "shard_deployment='nonsense': it is not a deployment of the flow"),
        ({"results": "memory://x/y"}, "results: memory://x/y is in the memory of this process"),
        ({"concurrency_limit": "nowhere"}, "concurrency_limit='nowhere': the Prefect server has no such"),
    ],
)
def test_shards_that_cannot_be_started_are_refused(environment, unserved, tmp_path, options, message):
    options = {"shard_deployment": "run-batch-shard/unserved", **options}
    with pytest.raises(ConfigurationError, match=message):
        sharded(tmp_path, ["a"], "true", return_state=False, **options)


@pytest.mark.usefixtures("prefect_server")
def test_a_configuration_that_other_machines_cannot_have_is_refused(ags_config, tmp_path):
    with pytest.raises(ConfigurationError, match="a configuration that is not saved"):
        sharded(tmp_path, ["a"], "true", config=ags_config, return_state=False)


def test_a_location_of_a_batch_without_shards_is_refused(environment, prefect_server, ags_config, tmp_path):
    run_items(["a"], command="true", tool="base", results=tmp_path, config=ags_config)
    with pytest.raises(ConfigurationError, match="There: command true for 1 item. Here: .* in 2 shards"):
        sharded(tmp_path, ["a"], "true", return_state=False)


@pytest.fixture
def unserved(prefect_server):
    """A deployment of shards that nothing executes, and a function that reads its runs, in the order of their names."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(run_batch_shard), "unserved")

    def runs():
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        with get_client(sync_client=True) as client:
            return sorted(client.read_flow_runs(deployment_filter=chosen), key=lambda run: run.name)

    yield runs
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment)


MANY = [f"item-{number}" for number in range(12)]
UNSERVED = {"shards": 3, "sandboxes": 3, "shard_deployment": "run-batch-shard/unserved", "return_state": False}


@pytest.mark.parametrize("taken", [pytest.param("items.jsonl", marks=pytest.mark.long), "progress.json"])
def test_the_shards_that_were_started_are_cancelled_when_a_later_one_cannot_be(
    environment, unserved, tmp_path, monkeypatch, taken
):
    monkeypatch.setattr(storages, "BACKOFF", Backoff(attempts=2, first_pause=0.1))
    # A directory is where a file of the second shard belongs.
    (tmp_path / "shard-0001" / taken).mkdir(parents=True)
    with pytest.raises(ResultsError, match=taken):
        sharded(tmp_path, MANY, "true", **UNSERVED)
    runs = unserved()
    assert len(runs) == (1 if taken == "items.jsonl" else 2)
    assert {run.state.type for run in runs} == {StateType.CANCELLED}


def test_the_shards_go_on_when_the_results_fail_while_they_are_watched(environment, unserved, tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "BACKOFF", Backoff(attempts=2, first_pause=0.1))

    def fail_when_begun():
        while len(unserved()) < 3:
            time.sleep(0.1)
        # A directory is where the file was: it cannot be read any more.
        while not (tmp_path / "claim.json").is_dir():
            with contextlib.suppress(OSError):
                (tmp_path / "claim.json").unlink(missing_ok=True)
                (tmp_path / "claim.json").mkdir()

    failing = threading.Thread(target=fail_when_begun)
    failing.start()
    with pytest.raises(ResultsError, match="IsADirectoryError"):
        sharded(tmp_path, MANY, "true", **UNSERVED)
    failing.join()
    assert {run.state.type for run in unserved()} == {StateType.SCHEDULED}


@pytest.mark.parametrize(("shards", "sandboxes", "shares"), [(3, 10, [4, 3, 3]), (3, None, [1, 1, 1])])
def test_the_sandboxes_of_a_batch_are_those_of_all_its_shards(
    ags_emulator, environment, unserved, tmp_path, monkeypatch, shards, sandboxes, shares
):
    def end(self, seconds):
        raise ConfigurationError("All were started.")

    ags_emulator.limits(quotas=True, instances=2)
    monkeypatch.setattr(module.Shards, "wait", end)
    with pytest.raises(ConfigurationError, match="All were started"):
        sharded(tmp_path, MANY, "true", **{**UNSERVED, "shards": shards, "sandboxes": sandboxes})
    assert [run.parameters["options"]["sandboxes"] for run in unserved()] == shares


def test_fewer_sandboxes_than_shards_are_refused(environment, tmp_path):
    with pytest.raises(ConfigurationError, match="sandboxes=2 are too few for 3 shards: each has one at least"):
        sharded(tmp_path, MANY, "true", **{**UNSERVED, "sandboxes": 2})


def test_the_sandboxes_of_shards_that_are_executed_one_after_the_other_are_not_added_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    shards = [
        module.Shard(part, FlowRun(flow_id=uuid.uuid4(), state=Pending()))
        for part in sliced(read_items(MANY).all, 2, str(tmp_path))
    ]
    watched = module.Shards(shards, 0, logging.getLogger("test"))

    def look(states, used):
        for shard, most in zip(shards, used, strict=True):
            shard.part.storage.write("progress.json", json.dumps({"sandboxes": most}).encode())
        runs = [shard.run.model_copy(update={"state": state}) for shard, state in zip(shards, states, strict=True)]
        monkeypatch.setattr(watched, "_runs", lambda: runs)
        watched.wait(0)
        return watched.most

    assert look([Running(), Pending()], [2, 0]) == 2
    assert look([Completed(), Pending()], [3, 0]) == 3
    assert look([Completed(), Running()], [3, 2]) == 3
    assert look([Completed(), Completed()], [3, 4]) == 4


@pytest.mark.parametrize("on_crash", ["lease", "stop"])
def test_shards_have_the_on_crash_of_their_batch(environment, unserved, ags_config, tmp_path, on_crash):
    def end(number, frame):
        raise TerminationSignal(signal=number)

    def end_when_begun():
        while len(unserved()) < 3:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    ending = threading.Thread(target=end_when_begun)
    try:
        ending.start()
        with pytest.raises(TerminationSignal):
            sharded(tmp_path, MANY, "true", on_crash=on_crash, **UNSERVED)
    finally:
        ending.join()
        signal.signal(signal.SIGTERM, before)
    first, *others = unserved()
    expected = StateType.CANCELLED if on_crash == "stop" else StateType.SCHEDULED
    assert {run.state.type for run in (first, *others)} == {expected}
    # What a worker calls when the process of a shard was killed.
    control = ags_config.control_plane()
    control.start_instance(tool="base", timeout="5m", metadata={MANAGED_BY_KEY: MANAGED_BY, FLOW_RUN: str(first.id)})
    stop_sandboxes_if_asked(run_batch_shard, first, Crashed())
    assert bool(live(ags_config)) == (on_crash == "lease")
