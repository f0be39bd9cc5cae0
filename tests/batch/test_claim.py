import json
import logging
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem

from ags_flows.batch import claim
from ags_flows.batch.claim import CLAIM, claimed
from ags_flows.batch.storage import DirectoryStorage, PrefectStorage
from ags_flows.errors import ConfigurationError
from ags_flows.flows import run_items

LOGGER = logging.getLogger("ags_flows.claims")


@pytest.fixture(params=["directory", "objects"])
def storage(request, tmp_path):
    if request.param == "directory":
        return DirectoryStorage(tmp_path / "batch")
    return PrefectStorage(LocalFileSystem(basepath=str(tmp_path)), "batch/")


def claim_of(run, host, process, **more):
    return json.dumps({"run": run, "host": host, "process": process, "token": run, **more}).encode()


def held(storage):
    while True:
        try:
            return json.loads(storage.read(CLAIM))
        except ValueError:
            # Prefect's local file system does not write whole or not at all.
            continue


def test_two_runs_with_one_place_do_each_item_once(ags_config, tmp_path, caplog):
    done = []

    def work(sandbox, item):
        done.append(item)
        time.sleep(0.2)

    def batch(_):
        return run_items(list("abcdef"), work, tool="base", sandboxes=2, results=tmp_path, config=ags_config)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(batch, 1)
        while not done:
            time.sleep(0.01)
        second = threads.submit(batch, 2)
        reports = [first.result(), second.result()]
    assert sorted(done) == list("abcdef")
    assert [(report.succeeded, report.resumed, report.started) for report in reports] == [(6, 0, 2), (6, 6, 0)]
    assert "is at work on these results: waiting" in caplog.text


def test_a_claim_is_given_up_at_the_end_also_after_a_failure(storage):
    with pytest.raises(ValueError, match="oh"):
        with claimed(storage, "one", LOGGER):
            assert held(storage)["run"] == "one"
            raise ValueError("oh")
    assert not storage.read(CLAIM)


def test_a_retry_of_a_run_and_whoever_follows_a_dead_process_do_not_wait(storage):
    gone = subprocess.Popen(["true"])
    gone.wait()
    storage.write(CLAIM, claim_of("one", "elsewhere", 1))
    begun = time.monotonic()
    with claimed(storage, "one", LOGGER):
        pass
    storage.write(CLAIM, claim_of("one", socket.gethostname(), gone.pid))
    with claimed(storage, "two", LOGGER):
        assert held(storage)["run"] == "two"
    storage.write(CLAIM, b'{"run": "th')
    with claimed(storage, "two", LOGGER):
        pass
    assert time.monotonic() - begun < claim.LOOK


def test_a_claim_of_another_machine_holds_as_long_as_it_is_renewed(storage, monkeypatch):
    monkeypatch.setattr(claim, "LOST", 0.6)
    monkeypatch.setattr(claim, "LOOK", 0.05)
    last = 0.0

    def renew():
        nonlocal last
        for beats in range(6):
            storage.write(CLAIM, claim_of("one", "elsewhere", 1, beats=beats))
            last = time.monotonic()
            time.sleep(0.2)

    storage.write(CLAIM, claim_of("one", "elsewhere", 1))
    other = threading.Thread(target=renew)
    other.start()
    with claimed(storage, "two", LOGGER):
        assert time.monotonic() - last >= 0.5
    other.join()


def test_whoever_lost_a_claim_leaves_it_to_the_other(storage, monkeypatch, caplog):
    monkeypatch.setattr(claim, "BEAT", 0.05)
    with claimed(storage, "one", LOGGER):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and held(storage)["beats"] < 2:
            time.sleep(0.01)
        assert held(storage)["beats"] >= 2
        storage.write(CLAIM, claim_of("two", "elsewhere", 1))
        while time.monotonic() < deadline and "taken" not in caplog.text:
            # A renewal that was underway came later.
            if held(storage)["run"] == "one":
                storage.write(CLAIM, claim_of("two", "elsewhere", 1))
            time.sleep(0.01)
    assert "Run two has taken these results over" in caplog.text
    assert held(storage) == {"run": "two", "host": "elsewhere", "process": 1, "token": "two"}


def test_a_place_that_cannot_be_used_is_told():
    with pytest.raises(ConfigurationError, match=r"results: /proc/nowhere/results\.jsonl cannot be used"):
        with claimed(DirectoryStorage(Path("/proc/nowhere")), "one", LOGGER):
            pass
