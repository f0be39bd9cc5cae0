"""Batches whose results location fails or vanishes while they are at work."""

import json
import shutil
import threading
import time
from dataclasses import replace

import pytest

from ags_flows.batch import storage as storages
from ags_flows.batch.storage import DirectoryStorage, ResultsError
from ags_flows.errors import ConfigurationError
from ags_flows.flows import run_items


class Failing(DirectoryStorage):
    """A directory that can be written to until `fails`."""

    fails = False

    def append(self, name, content):
        if self.fails:
            raise OSError("503 SlowDown")
        super().append(name, content)

    def write(self, name, content):
        if self.fails:
            raise OSError("503 SlowDown")
        super().write(name, content)


def lines(directory):
    return {line["key"]: line for line in map(json.loads, (directory / "results.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("what", ["command", pytest.param("function", marks=pytest.mark.long)])
def test_a_location_that_fails_in_the_middle_is_given_up_once_and_leaves_all_to_the_retry(
    ags_config, tmp_path, attempt, live, monkeypatch, what
):
    monkeypatch.setattr(storages, "PATIENCE", 1.5)
    storage, items = Failing(tmp_path), [str(number) for number in range(8)]
    command = 'echo "$ITEM" >> ran; case $ITEM in [0-3]) sleep 0.5 ;; *) sleep 4 ;; esac; sort -n ran'

    def work(sandbox, item):
        return sandbox.run(command, env={"ITEM": item}).stdout

    options = {"tool": "base", "sandboxes": 4, "results": storage, "config": ags_config, "task_runs": "none"}
    options |= {"command": command} if what == "command" else {"function": work}
    failed_at = []

    def fail_when_four_are_done():
        part = tmp_path / "ledger-00000.jsonl"
        while not part.exists() or part.read_text().count('"begun"') < 8:
            time.sleep(0.02)
        storage.fails = True
        failed_at.append(time.monotonic())

    failing = threading.Thread(target=fail_when_four_are_done)
    failing.start()
    with attempt(1), pytest.raises(ResultsError, match="503 SlowDown"):
        run_items(items, **options)
    failing.join()
    # The items need four seconds before the first result cannot be recorded.
    assert time.monotonic() - failed_at[0] < 4 + 1.5 + 4
    assert len(live()) == 4
    storage.fails = False
    with attempt(2):
        report = run_items(items, **options)
    assert (report.succeeded, report.started) == (8, 0)
    ran = [(line["stdout"] or line["value"]).split() for line in lines(tmp_path).values()]
    assert all(len(set(found)) == len(found) for found in ran)
    assert not live()


class Away(DirectoryStorage):
    """A directory whose first reads fail."""

    def __init__(self, directory, failures):
        super().__init__(directory)
        self.failures = failures

    def read(self, name):
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("storage down")
        return super().read(name)


def test_a_location_that_does_not_respond_at_the_start_is_waited_for(ags_config, tmp_path, monkeypatch):
    options = {"command": "true", "tool": "base", "sandboxes": 1, "config": ags_config}
    monkeypatch.setattr(storages, "BACKOFF", replace(storages.BACKOFF, first_pause=0.05, longest_pause=0.1))
    # More often than a wrong location would be tried.
    assert run_items(["a"], results=Away(tmp_path, 12), **options).succeeded == 1
    monkeypatch.setattr(storages, "BACKOFF", replace(storages.BACKOFF, patience=0.3))
    with pytest.raises(ResultsError, match="storage down.*Run the batch again with the same location"):
        run_items(["a"], results=Away(tmp_path, 1000), **options)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("memory://", "results: memory:// names no place in its store"),
        ("file:///proc/nowhere/x", "results: /proc/nowhere/x/results.jsonl cannot be used"),
        ("nosuch://bucket/x", "results: nosuch://bucket/x/results.jsonl cannot be used"),
        ("http://127.0.0.1:9/x", "results: http://127.0.0.1:9/x cannot be written to"),
        ("file://reldir/x", "results: file://reldir/x is not the URL of a directory"),
        ("file:relative", "results: file:relative is not the URL of a directory"),
        ("file:///tmp/a?b", "is not the URL of a directory"),
        ("  ", "results: the location is blank"),
    ],
)
def test_a_wrong_location_is_reported_immediately(ags_config, location, message):
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=f"{message}.*This run has started nothing"):
        run_items(["a"], command="true", tool="base", sandboxes=1, results=location, config=ags_config)
    assert time.monotonic() - began < storages.PATIENCE


@pytest.mark.parametrize("form", ["file://", "file:", "file://localhost"])
def test_the_url_of_a_directory_is_the_directory(ags_config, tmp_path, form):
    url = (tmp_path / "a b").as_uri().replace("file://", form)
    run_items(["a"], command="true", tool="base", sandboxes=1, results=url, config=ags_config)
    assert list(lines(tmp_path / "a b")) == ["a"]


@pytest.mark.parametrize("what", ["the directory", "a part"])
def test_results_that_are_deleted_in_the_middle_are_an_error_that_names_them(ags_config, tmp_path, attempt, live, what):
    location, items = tmp_path / "out", [str(number) for number in range(6)]
    options = {"tool": "base", "sandboxes": 1, "results": location, "config": ags_config}
    deleted = []

    def work(sandbox, item):
        if item == "3" and not deleted:
            deleted.append(item)
            shutil.rmtree(location) if what == "the directory" else (location / "ledger-00000.jsonl").unlink()
        return item

    with attempt(1), pytest.raises(ResultsError, match=f"{location}.*deleted while the batch was at work"):
        run_items(items, work, **options)
    # A retry would not know what is in them.
    assert not live()
    with attempt(2):
        report = run_items(items, work, **options)
    assert report.succeeded == len(lines(location)) == 6


def test_a_first_record_that_is_deleted_in_the_middle_is_written_again(ags_config, tmp_path):
    options = {"tool": "base", "sandboxes": 1, "results": tmp_path, "config": ags_config}
    assert run_items(["a"], lambda sandbox, item: (tmp_path / "batch.json").unlink(), **options).succeeded == 1
    with pytest.raises(ConfigurationError, match="belongs to another batch"):
        run_items(["a"], command="true", **options)


def test_items_that_are_not_in_the_list_any_more_are_reported(ags_config, tmp_path, caplog):
    options = {"command": "true", "tool": "base", "results": tmp_path, "config": ags_config}
    run_items(list("abc"), **options)
    report = run_items(["b", "d"], **options)
    assert (report.succeeded, report.resumed, report.unlisted) == (2, 1, 2)
    assert "2 items that are recorded in" in caplog.text
    assert list(lines(tmp_path)) == ["b", "d"]
