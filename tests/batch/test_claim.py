import json
import logging
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem

from ags_flows.batch import claim
from ags_flows.batch.claim import CLAIM, claimed, location_of
from ags_flows.batch.identity import identity_of
from ags_flows.batch.items import Items, read_items
from ags_flows.batch.ledger import Ledger
from ags_flows.batch.storage import DirectoryStorage, PrefectStorage, ResultsGoneError
from ags_flows.batch.tool import BatchTool
from ags_flows.batch.work import Work
from ags_flows.errors import ConfigurationError, ConflictError, SupersededError, WaitCancelledError
from ags_flows.flows import run_items
from ags_flows.models import BatchOptions, ItemResult
from ags_flows.ownership import Frame, Holder
from ags_flows.run.holder import Execution

LOGGER = logging.getLogger("ags_flows.claims")


@pytest.fixture(params=["directory", "objects"])
def storage(request, tmp_path):
    if request.param == "directory":
        return DirectoryStorage(tmp_path / "batch")
    return PrefectStorage(LocalFileSystem(basepath=str(tmp_path)), "batch/")


def holder(run, attempt=1, call="c"):
    return Holder((Frame("flow", run, attempt), Frame("call", call)))


def written(storage, who, **more):
    storage.write(CLAIM, json.dumps({"holder": str(who), "token": str(who), "ended": False, **more}).encode())


def held(storage):
    while True:
        try:
            return json.loads(storage.read(CLAIM))
        except ValueError:
            # Prefect's local file system does not write whole or not at all.
            continue


def hold(storage, who, on_lost=lambda: None):
    return claimed(storage, who, LOGGER, on_lost)


def test_two_runs_with_one_location_do_each_item_once(ags_config, tmp_path, caplog):
    done = []

    def work(sandbox, item):
        done.append(item)
        time.sleep(0.1)

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


def test_a_claim_has_ended_after_its_block_also_after_a_failure(storage):
    with pytest.raises(ValueError, match="oh"):
        with hold(storage, holder("one")):
            assert held(storage)["ended"] is False
            raise ValueError("oh")
    assert held(storage)["ended"] is True


@pytest.mark.parametrize(
    "found",
    [b'{"holder": "f:o', json.dumps({"holder": str(holder("one")), "ended": True}).encode()],
    ids=["a damaged claim", "a claim that has ended"],
)
def test_a_location_that_is_not_in_use_is_claimed_immediately(storage, found):
    storage.write(CLAIM, found)
    begun = time.monotonic()
    with hold(storage, holder("two")):
        assert held(storage)["holder"] == str(holder("two"))
    assert time.monotonic() - begun < claim.LOOK


def test_a_later_attempt_does_not_wait_and_an_earlier_one_is_refused(storage):
    written(storage, holder("one", 2))
    begun = time.monotonic()
    with hold(storage, holder("one", 3)):
        pass
    assert time.monotonic() - begun < claim.LOOK
    with pytest.raises(SupersededError):
        with hold(storage, holder("one", 1)):
            pass


def test_another_run_waits_as_long_as_a_claim_is_renewed(storage, monkeypatch):
    monkeypatch.setattr(claim, "LOST", 0.6)
    monkeypatch.setattr(claim, "LOOK", 0.05)
    last = 0.0

    def renew():
        nonlocal last
        for beats in range(6):
            written(storage, holder("one"), beats=beats)
            last = time.monotonic()
            time.sleep(0.2)

    written(storage, holder("one"))
    other = threading.Thread(target=renew)
    other.start()
    with hold(storage, holder("two")):
        assert time.monotonic() - last >= 0.5
    other.join()


@pytest.mark.parametrize(
    ("who", "error"), [(holder("two"), ConflictError), (holder("one", 2), SupersededError)], ids=["run", "attempt"]
)
def test_a_run_that_lost_its_claim_is_interrupted_and_leaves_it_to_the_other(storage, monkeypatch, who, error):
    monkeypatch.setattr(claim, "BEAT", 0.02)
    lost = threading.Event()
    with hold(storage, holder("one"), lost.set) as mine:
        while not lost.wait(0.05):
            # A renewal that was underway came later.
            if held(storage)["holder"] != str(who):
                written(storage, who)
        with pytest.raises(error):
            mine.check()
    assert held(storage)["holder"] == str(who) and held(storage)["ended"] is False


def test_a_take_over_is_noticed_before_the_next_record(storage):
    with hold(storage, holder("one")) as mine:
        mine.check()
        written(storage, holder("two"))
        time.sleep(claim.FRESH)
        with pytest.raises(ConflictError, match="another run"):
            mine.check()


def test_an_earlier_attempt_that_slept_before_it_wrote_does_not_keep_the_location(storage):
    with hold(storage, holder("a", 2)) as claim:
        written(storage, holder("a", 1))
        claim.renew()
        claim.check()
        assert held(storage)["holder"] == str(holder("a", 2))


def test_a_location_that_was_deleted_is_not_used_again(tmp_path):
    location, lost = tmp_path / "batch", threading.Event()
    with hold(DirectoryStorage(location), holder("one"), lost.set) as mine:
        shutil.rmtree(location)
        assert lost.wait(10)
        with pytest.raises(ResultsGoneError, match=f"{location} was deleted"):
            mine.check()
    assert not location.exists()


def test_a_thread_that_ends_after_its_batch_records_nothing(storage):
    with hold(storage, holder("one")) as mine:
        pass
    time.sleep(claim.FRESH)
    with pytest.raises(WaitCancelledError):
        mine.check()
    assert held(storage)["ended"] is True


def test_a_run_that_loses_its_location_stops_and_leaves_no_sandbox(ags_config, tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "BEAT", 0.05)
    done, ended = [], threading.Event()

    def work(sandbox, item):
        done.append(item)
        sandbox.run("sleep 60")

    def overtake():
        # Again and again: a renewal that was underway may have come later.
        while not ended.wait(0.02):
            if done:
                written(DirectoryStorage(tmp_path), holder("two"))

    other = threading.Thread(target=overtake)
    other.start()
    try:
        with pytest.raises(ConflictError, match="another run"):
            run_items(list("abcdef"), work, tool="base", sandboxes=1, results=tmp_path, config=ags_config)
    finally:
        ended.set()
        other.join()
    assert len(done) == 1
    assert not [one for one in ags_config.control_plane().list_instances() if one.status == "RUNNING"]


def test_a_location_that_is_lost_while_the_tool_is_made_starts_nothing(ags_config, tmp_path, monkeypatch):
    def make(self):
        written(DirectoryStorage(tmp_path), holder("two"))
        time.sleep(claim.FRESH)
        return "base"

    monkeypatch.setattr(BatchTool, "make", make)
    done = []
    with pytest.raises(ConflictError, match="another run"):
        run_items(["a"], lambda sandbox, item: done.append(item), tool="base", results=tmp_path, config=ags_config)
    assert (done, ags_config.control_plane().list_instances()) == ([], [])


def step(attempt):
    return Execution((Frame("flow", "run", attempt),)).step("run_items", {})


def begin(storage, made, *keys, done=()):
    """Begin a batch without `results=`, do some of its items, and return the number of its location."""
    items = read_items(keys).all
    identity = identity_of(Items(items), Work(command="true"), BatchOptions())
    location, number = location_of(storage, made, lambda found: identity.fit(found, items))
    with hold(location, made.holder) as mine:
        ledger = Ledger(location, items, identity, mine.check)
        ledger.refuse_other_items()
        ledger.prepare()
        ledger.begin([(item, 1) for item in items if item.key in done], "sandbox")
        ledger.finish([(one, ItemResult(key=one.key, index=0, status="ok")) for one in items if one.key in done])
    return number


def test_equal_batches_of_a_run_have_separate_locations_which_a_retry_finds(storage):
    numbers = [begin(storage, step(attempt), "a") for attempt in (1, 2) for _ in range(2)]
    assert numbers == [0, 1, 0, 1]


def test_equal_batches_that_begin_in_another_order_find_their_own_locations(storage):
    first = [begin(storage, step(1), *keys, done=keys[:1]) for keys in ("abc", "cde", "xyz")]
    assert first == [0, 1, 2]
    second = [begin(storage, step(2), *keys, done=keys[:1]) for keys in ("xyz", "cde", "abc")]
    assert second == [2, 1, 0]


def test_a_batch_whose_list_has_changed_shares_no_location_with_other_items(storage):
    assert [begin(storage, step(1), *keys, done=keys) for keys in ("ab", "cd")] == [0, 1]
    # A longer list goes on where it was; one that lacks recorded items has a new location.
    assert [begin(storage, step(2), *keys, done=keys) for keys in ("xcd", "b", "ab")] == [1, 2, 0]


def test_a_location_that_cannot_be_used_is_reported():
    with pytest.raises(ConfigurationError, match=r"results: /proc/nowhere/results\.jsonl cannot be used"):
        with hold(DirectoryStorage(Path("/proc/nowhere")), holder("one")):
            pass
