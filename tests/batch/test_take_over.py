"""Items in progress belong to their sandbox: whichever slot of a retry comes first, none is begun in another one."""

import importlib
import itertools
import json
import threading
import time
from contextlib import contextmanager

import pytest
from prefect.exceptions import TerminationSignal

from ags_flows.batch.items import read_items
from ags_flows.batch.slices import sliced
from ags_flows.flows import run_batch_shard, run_items

MODULE = importlib.import_module("ags_flows.flows.run_items")
ORDERS = list(itertools.permutations(range(3)))
COMMAND = "sleep 1"


def begun(directory):
    """Return in which sandboxes each item was begun, in the order in which they were."""
    found = {}
    for part in directory.glob("ledger-*"):
        for record in map(json.loads, part.read_text().splitlines()):
            if "begun" in record:
                found.setdefault(record["key"], []).append(record["begun"])
    return found


def admit(monkeypatch, order, directory):
    """Let slots in by this order, each as soon as those before it have begun an item."""
    before = sum(map(len, begun(directory).values()))

    @contextmanager
    def gate(over):
        position = order.index(int(threading.current_thread().name.rpartition("-")[2]))
        while sum(map(len, begun(directory).values())) < before + position and not over():
            threading.Event().wait(0.02)
        yield not over()

    monkeypatch.setattr(MODULE, "open_gate", gate)


@pytest.fixture
def batch(ags_emulator, ags_config, tmp_path, monkeypatch):
    """Return a function that does the items, as a batch or as a shard of one, and where it keeps its records."""
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)

    def start(sandboxes, what="a command", **more):
        options = {"sandboxes": sandboxes, "retries": 2, **more}
        if what == "a shard":
            return run_batch_shard.fn(part.location, {"command": COMMAND}, options, "base")
        options |= {"tool": "base", "results": directory, "config": ags_config}
        if what == "a function":
            return run_items(items, work, **options)
        return run_items(items, command=COMMAND, **options)

    def work(sandbox, item):
        sandbox.run(COMMAND)

    items = list("abcd")
    [part] = sliced(read_items(items).all, 1, str(tmp_path))
    part.write()
    directory = tmp_path / "shard-0000"
    return start, directory


@pytest.mark.parametrize(
    ("order", "what", "fails"),
    [
        *((order, "a command", False) for order in ORDERS),
        (ORDERS[0], "a command", True),
        (ORDERS[-1], "a function", True),
        (ORDERS[-1], "a shard", True),
    ],
)
def test_items_in_progress_are_begun_in_no_other_sandbox(
    batch, attempt, dies, live, monkeypatch, take_overs_fail, order, what, fails
):
    start, directory = batch
    dies(lambda runner: len(begun(directory)) == 2)
    with attempt(1), pytest.raises(TerminationSignal):
        start(2, what)
    assert len(live()) == 2
    admit(monkeypatch, order, directory)
    take_overs_fail(2 * fails)
    with attempt(2):
        report = start(3, what)
    assert report.succeeded == 4
    # On a busy machine the two sandboxes may have done all items before the third one is asked for.
    assert report.started <= 1
    assert {key: len(set(found)) for key, found in begun(directory).items()} == dict.fromkeys("abcd", 1)
    assert not live()


def test_sandboxes_in_progress_beyond_the_limit_are_stopped(batch, attempt, dies, live):
    start, directory = batch
    dies(lambda runner: len(begun(directory)) == 3)
    with attempt(1), pytest.raises(TerminationSignal):
        start(3)
    with attempt(2):
        report = start(1)
    assert (report.succeeded, report.started, report.sandboxes) == (4, 0, 1)
    assert not live()


def test_items_in_progress_outlive_a_long_wait_for_a_slot(batch, attempt, dies, live, ags_config, monkeypatch):
    start, directory = batch
    dies(lambda runner: begun(directory))
    with attempt(1), pytest.raises(TerminationSignal):
        start(1)
    [left] = live()
    control = ags_config.control_plane()

    @contextmanager
    def gate(over):
        ends, deadline = control.get_instance(left.id).expires_at, time.monotonic() + 20
        while control.get_instance(left.id).expires_at == ends and time.monotonic() < deadline:
            time.sleep(0.05)
        renewed.append(control.get_instance(left.id).expires_at > ends)
        yield not over()

    renewed = []
    monkeypatch.setattr(MODULE, "open_gate", gate)
    with attempt(2):
        report = start(1)
    assert (report.succeeded, report.started, renewed) == (4, 0, [True])


@pytest.mark.parametrize("what", ["a command", "a function"])
def test_a_sandbox_that_is_taken_over_does_no_more_items_than_it_may(batch, attempt, dies, what):
    start, directory = batch
    for number in (1, 2):
        dies(lambda runner, number=number: len(begun(directory)) > number)
        with attempt(number), pytest.raises(TerminationSignal):
            start(1, what, items_per_sandbox=3)
    with attempt(3):
        report = start(1, what, items_per_sandbox=3)
    sandboxes = [one for found in begun(directory).values() for one in set(found)]
    assert report.succeeded == len(sandboxes) == 4
    assert max(map(sandboxes.count, sandboxes)) == 3
