"""Batches that are killed, interrupted or hit by faults: each attempt is simulated in this process."""

import json
import sys
import threading
import time

import pytest
from prefect.exceptions import TerminationSignal

from ags_flows.batch import runner as runners
from ags_flows.batch.storage import DirectoryStorage, ResultsError
from ags_flows.durable import claims
from ags_flows.flows import run_items
from ags_flows.lifecycle.waiting import wait_instance_status

MODULE = sys.modules["ags_flows.flows.run_items"]


def lines(directory):
    return {line["key"]: line for line in map(json.loads, (directory / "results.jsonl").read_text().splitlines())}


def begun(directory):
    """Return how often each item was handed to a sandbox."""
    records = [json.loads(line) for part in directory.glob("ledger-*") for line in part.read_text().splitlines()]
    return [record["key"] for record in records if "begun" in record]


@pytest.mark.parametrize("what", ["command", "function"])
def test_a_batch_that_was_killed_in_its_tail_does_nothing_twice(ags_config, tmp_path, attempt, dies, live, what):
    command = 'echo "$ITEM" >> ran; [ "$ITEM" != d ] || sleep 3; cat ran'

    def work(sandbox, item):
        return sandbox.run(command, env={"ITEM": item}).stdout

    options = {"tool": "base", "sandboxes": 4, "results": tmp_path / "out", "config": ags_config}
    options |= {"command": command} if what == "command" else {"function": work}
    dies(lambda runner: runner.done == 3)
    with attempt(1), pytest.raises(TerminationSignal):
        run_items(list("abcd"), **options)
    with attempt(2):
        report = run_items(list("abcd"), **options)
    assert (report.succeeded, report.resumed, report.started) == (4, 3, 0)
    found = lines(tmp_path / "out")["d"]
    assert (found["stdout"] or found["value"]).split().count("d") == 1
    assert not live()


@pytest.mark.parametrize("ahead", [4, 12])
def test_items_that_were_handed_over_ahead_run_once(ags_config, tmp_path, attempt, dies, live, ahead):
    items = [str(number) for number in range(40)]
    command = 'echo "$ITEM" >> ran; sleep 0.05; sort -n ran | uniq -d'
    options = {"tool": "base", "sandboxes": 2, "results": tmp_path / "out", "config": ags_config}
    for number, done in enumerate((ahead, 2 * ahead), start=1):
        dies(lambda runner, done=done: runner.done >= done)
        with attempt(number), pytest.raises(TerminationSignal):
            run_items(items, command=command, **options)
    with attempt(3):
        report = run_items(items, command=command, **options)
    assert (report.succeeded, report.started) == (40, 0)
    assert {found["stdout"] for found in lines(tmp_path / "out").values()} == {""}
    assert not live()


def test_an_item_that_was_begun_is_found_after_the_list_has_grown(ags_config, tmp_path, attempt, dies):
    options = {"command": 'echo "$ITEM" >> ran; sleep 1; cat ran', "tool": "base", "sandboxes": 1}
    options |= {"results": tmp_path / "out", "config": ags_config}
    dies(lambda runner: begun(tmp_path / "out"))
    with attempt(1), pytest.raises(TerminationSignal):
        run_items(["m"], **options)
    with attempt(2):
        run_items(["a", "m"], **options)
    assert {key: line["stdout"].split().count(key) for key, line in lines(tmp_path / "out").items()} == {"a": 1, "m": 1}


@pytest.mark.usefixtures("prefect_server")
def test_equal_batches_of_a_run_may_begin_in_another_order_in_a_retry(ags_config, attempt):
    lists = [list("abc"), list("cde"), list("xyz")]
    options = {"command": 'echo "$ITEM"', "tool": "base", "sandboxes": 1, "config": ags_config}
    with attempt(1):
        first = [run_items(items, **options) for items in lists]
    with attempt(2):
        second = [run_items(items, **options) for items in reversed(lists)]
    assert [report.resumed for report in second] == [3, 3, 3]
    assert [report.results for report in reversed(second)] == [report.results for report in first]


def test_ctrl_c_while_sandboxes_start_leaves_no_sandbox_and_no_later_execution(
    ags_emulator, ags_config, tmp_path, dies, live, monkeypatch
):
    monkeypatch.setattr(runners, "LONGEST_STOP", 0.1)
    ags_emulator.transition("instance.start", "seconds", 2)
    dies(lambda runner: len(live()) == 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_items(list("abcd"), command="true", tool="base", sandboxes=2, results=tmp_path, config=ags_config)
    deadline = time.monotonic() + 20
    while live() or any(thread.name.startswith(("ags-batch", "ags-lease")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, [live(), threading.enumerate()]
        time.sleep(0.05)
    assert begun(tmp_path) == []


def test_ctrl_c_while_items_are_executed_ends_their_sandboxes(ags_config, tmp_path, dies, live):
    dies(lambda runner: len(begun(tmp_path)) == 2, KeyboardInterrupt())
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_items(list("ab"), command="sleep 60", tool="base", sandboxes=2, results=tmp_path, config=ags_config)
    assert not live()
    assert time.monotonic() - began < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ags-batch")]


def test_a_function_that_goes_on_after_ctrl_c_records_nothing(ags_config, tmp_path, dies, live, monkeypatch):
    monkeypatch.setattr(runners, "LONGEST_STOP", 0.1)
    computed, options = [], {"tool": "base", "sandboxes": 1, "results": tmp_path, "config": ags_config}
    batch_has_ended = threading.Event()

    def work(sandbox, item):
        assert batch_has_ended.wait(60)
        computed.append(item)

    dies(lambda runner: begun(tmp_path) == ["a"], KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_items(list("ab"), work, **options)
    assert (computed, live()) == ([], [])
    recorded = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    batch_has_ended.set()
    deadline = time.monotonic() + 20
    while any(thread.name.startswith("ags-batch") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert computed == ["a"]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == recorded


def superseded(sandbox):
    raise claims.superseded("sandbox-of-its-own", "f:other:2 c:call:1")


@pytest.mark.parametrize(
    "poison",
    [
        lambda sandbox: sandbox.run(""),
        lambda sandbox: sandbox.read("missing"),
        lambda sandbox: run_items([], command="true", tool="base"),
        superseded,
    ],
    ids=["a setting", "a missing file", "a batch inside of it", "a successor in another sandbox"],
)
def test_an_error_in_the_function_of_an_item_is_that_items_failure(ags_config, tmp_path, poison):
    def work(sandbox, item):
        return poison(sandbox) if item == "a" else sandbox.instance.id

    options = {"tool": "base", "sandboxes": 1, "fail_above": 0.5, "results": tmp_path, "config": ags_config}
    report = run_items(list("abc"), work, **options)
    # Its sandbox is used for the next one.
    assert (report.succeeded, report.failed, report.started) == (2, 1, 1)


def test_a_sandbox_that_ended_since_it_was_listed_is_replaced(ags_config, tmp_path, attempt, dies, live, monkeypatch):
    options = {"command": "sleep 2", "tool": "base", "sandboxes": 1, "results": tmp_path, "config": ags_config}
    dies(lambda runner: begun(tmp_path))
    with attempt(1), pytest.raises(TerminationSignal):
        run_items(["a"], **options)
    [left] = live()
    control = ags_config.control_plane()

    def end(self, done):
        control.stop_instance(left.id)
        wait_instance_status(control, left.id, goal="STOPPED", timeout=20)

    monkeypatch.setattr(MODULE.Observer, "announce", end)
    with attempt(2):
        report = run_items(["a"], retries=0, **options)
    assert (report.succeeded, report.started) == (1, 1)


def test_a_take_over_that_fails_for_now_is_repeated(ags_config, tmp_path, attempt, dies, take_overs_fail):
    options = {"command": 'echo "$ITEM" >> ran; sleep 1; cat ran', "tool": "base", "sandboxes": 1}
    options |= {"results": tmp_path, "config": ags_config}
    dies(lambda runner: begun(tmp_path))
    with attempt(1), pytest.raises(TerminationSignal):
        run_items(["a"], **options)
    take_overs_fail(2)
    with attempt(2):
        report = run_items(["a"], **options)
    assert (report.started, lines(tmp_path)["a"]["stdout"]) == (0, "a\n")


def test_results_that_cannot_be_written_leave_the_sandboxes_to_a_retry(
    ags_config, tmp_path, attempt, live, monkeypatch
):
    class Full(DirectoryStorage):
        failing = False

        def append(self, name, content):
            if self.failing and b"result" in content:
                raise OSError(28, "No space left on device")
            super().append(name, content)

    monkeypatch.setattr("ags_flows.batch.storage.PATIENCE", 0.5)
    command, storage = 'echo "$ITEM" >> ran; cat ran', Full(tmp_path)
    options = {"command": command, "tool": "base", "sandboxes": 1, "results": storage, "config": ags_config}
    storage.failing = True
    with attempt(1), pytest.raises(ResultsError, match="No space left on device"):
        run_items(["a"], **options)
    assert len(live()) == 1
    storage.failing = False
    with attempt(2):
        report = run_items(["a"], **options)
    assert (report.started, lines(tmp_path)["a"]["stdout"]) == (0, "a\n")
    assert not live()


def test_an_item_whose_sandbox_ends_is_charged_alone(ags_config, tmp_path, live):
    command = 'if [ "$ITEM" = b ]; then sleep 30; fi'
    options = {"command": command, "tool": "base", "sandboxes": 1, "retries": 0, "fail_above": 0.5}

    def when_b_has_begun():
        while "b" not in begun(tmp_path):
            time.sleep(0.02)
        [instance] = live()
        ags_config.control_plane().stop_instance(instance.id)

    killer = threading.Thread(target=when_b_has_begun)
    killer.start()
    report = run_items(list("abcde"), results=tmp_path, config=ags_config, **options)
    killer.join()
    assert [one.key for one in report.failures] == ["b"]
    assert report.succeeded == 4


def test_finished_items_leave_no_files_in_a_sandbox(ags_config, tmp_path, monkeypatch):
    monkeypatch.setattr("ags_flows.batch.leftovers.EVERY", 5)
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number:02}").write_text("x")
    options = {"tool": "base", "sandboxes": 1, "config": ags_config}
    # Each item counts what it finds beside its own: of those before it, since they were removed last.
    count = "ls -d ~/.ags_flows/*/journal/*/ | wc -l"
    run_items(list(range(12)), lambda sandbox, item: sandbox.run(count).stdout, results=tmp_path / "one", **options)
    assert [int(line["value"]) for line in lines(tmp_path / "one").values()] == [1, 2, 3, 4, 5] * 2 + [1, 2]
    count = "ls ~/.ags_flows/*/queue/*/*.rc /tmp/ags-items 2>/dev/null | wc -l"
    run_items(tmp_path / "in", command=count, results=tmp_path / "two", **options)
    found = [int(line["stdout"]) for line in lines(tmp_path / "two").values()]
    # A request removes what those before it left, and none of these has more than eight items.
    assert found[-1] < 8 + 8 + 2
