import sys

import pytest
from prefect.filesystems import LocalFileSystem, RemoteFileSystem

from ags_flows.batch import storage as storages
from ags_flows.batch.identity import Identity
from ags_flows.batch.items import read_items
from ags_flows.batch.ledger import Begun, Ledger
from ags_flows.batch.storage import DirectoryStorage, PrefectStorage, ResultsError, storage_at
from ags_flows.errors import ConfigurationError
from ags_flows.models import ItemResult

ITEMS = read_items([f"item-{number}" for number in range(250)]).all
WORK = Identity("count", "count", "command count for 250 items")


@pytest.fixture(params=["directory", "object store"])
def storage(request, tmp_path):
    if request.param == "directory":
        return lambda: DirectoryStorage(tmp_path / "deep" / "er")
    return lambda: PrefectStorage(RemoteFileSystem(basepath=f"memory://{tmp_path.name}"), "batch/")


def ok(item):
    return ItemResult(key=item.key, index=item.index, status="ok", value={"n": item.index})


def finish(ledger, *items):
    ledger.finish([(item, ok(item)) for item in items])


def values(ledger):
    return {result.key: result.value for result in ledger.results()}


def test_a_later_attempt_knows_what_is_done_and_what_was_begun(storage):
    first = Ledger(storage(), ITEMS, WORK)
    first.begin([(ITEMS[0], 1), (ITEMS[120], 1)], "sandbox-1")
    finish(first, ITEMS[0], ITEMS[120])
    first.begin([(ITEMS[1], 1), (ITEMS[2], 1)], "sandbox-1")
    first.finish([(ITEMS[2], ItemResult(key="item-2", index=2, status="failed", error="no"))])
    second = Ledger(storage(), ITEMS, WORK)
    assert second.resumed == {"item-0", "item-120"}
    assert second.begun == {"item-1": Begun("sandbox-1", 1)}
    assert second.attempts["item-2"] == 1
    assert values(second)["item-120"] == {"n": 120}
    assert (second.count("ok"), second.count("failed")) == (2, 1)


def test_a_line_that_was_cut_counts_as_never_written(tmp_path):
    storage = DirectoryStorage(tmp_path)
    finish(Ledger(storage, ITEMS, WORK), ITEMS[0])
    storage.append("ledger-00000.jsonl", b'{"key": "item-1", "ind')
    again = Ledger(storage, ITEMS, WORK)
    assert again.resumed == {"item-0"}
    finish(again, ITEMS[2])
    assert Ledger(storage, ITEMS, WORK).resumed == {"item-0", "item-2"}


def test_results_are_written_in_the_order_of_the_items_also_after_the_list_has_grown(storage):
    ledger = Ledger(storage(), ITEMS, WORK)
    finish(ledger, ITEMS[200], ITEMS[3])
    assert ledger.write_results().endswith("results.jsonl")
    longer = read_items([*(f"new-{number}" for number in range(150)), *(item.value for item in ITEMS)]).all
    again = Ledger(storage(), longer, WORK)
    assert again.resumed == {"item-200", "item-3"}
    finish(again, longer[7], longer[399])
    again.write_results()
    lines = storage().read("results.jsonl").splitlines()
    found = [ItemResult.model_validate_json(line) for line in lines]
    assert [(one.key, one.index) for one in found] == [
        ("new-7", 7),
        ("item-3", 153),
        ("item-200", 350),
        ("item-249", 399),
    ]


@pytest.mark.parametrize("location", ["/proc/nowhere", "nosuch://bucket/runs"])
def test_a_location_that_cannot_be_written_to_is_reported_before_anything_is_started(location):
    with pytest.raises(ConfigurationError, match=r"results: .* cannot be .* This run has started nothing"):
        Ledger(storage_at(location), ITEMS, WORK).prepare()


def test_a_store_that_cannot_be_read_now_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "batch" / "ledger-00000.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot be read: ValueError: Path .* is not a file"):
        Ledger(PrefectStorage(LocalFileSystem(basepath=str(tmp_path)), "batch/"), ITEMS, WORK)


def test_the_location_of_a_batch_of_other_items_is_refused(storage):
    first = Ledger(storage(), ITEMS, WORK)
    first.prepare()
    finish(first, ITEMS[0])
    other = Ledger(storage(), read_items(["a", "b"]).all, Identity("count", "count", "command add for 2 items"))
    with pytest.raises(ConfigurationError, match="another batch.*250 items, with the item 'item-0'.*Here: command add"):
        other.refuse_other_items()


def test_recorded_items_that_are_not_in_a_shorter_list_are_counted(storage):
    first = Ledger(storage(), ITEMS, WORK)
    first.prepare()
    finish(first, *ITEMS)
    for _ in range(2):
        shorter = Ledger(storage(), ITEMS[:40], WORK)
        shorter.refuse_other_items()
        shorter.prepare()
        assert (len(shorter.resumed), len(shorter.unlisted)) == (40, 210)
        assert len(list(shorter.results())) == 40


def test_the_latest_record_of_an_item_counts_wherever_the_item_is_in_the_list(storage):
    def listed(*first):
        return read_items([*first, *(f"new-{number}" for number in range(150)), "moved"]).all

    first = Ledger(storage(), listed(), WORK)
    first.prepare()
    first.begin([(listed()[-1], 1)], "sandbox-1")
    first.finish([(listed()[-1], ItemResult(key="moved", index=150, status="failed", error="no"))])
    second = Ledger(storage(), listed("moved"), WORK)
    assert (second.status, second.attempts["moved"]) == ({"moved": "failed"}, 1)
    second.prepare()
    second.begin([(listed("moved")[0], 2)], "sandbox-2")
    third = Ledger(storage(), listed("moved"), WORK)
    assert third.begun == {"moved": Begun("sandbox-2", 2)}
    finish(third, listed("moved")[0])
    for items in (listed("moved"), listed()):
        again = Ledger(storage(), items, WORK)
        assert (again.resumed, again.begun) == ({"moved"}, {})
        assert [(one.key, one.status) for one in again.results()] == [("moved", "ok")]


def test_the_location_of_other_work_is_refused_with_both_descriptions(storage):
    Ledger(storage(), ITEMS, WORK).prepare()
    with pytest.raises(ConfigurationError, match="There: command count for 250 items. Here: command add"):
        Ledger(storage(), ITEMS, Identity("add", "add", "command add for 250 items"))


@pytest.mark.parametrize("change", ["value", "work"])
def test_an_item_is_done_when_its_value_and_its_work_are_the_recorded_ones(storage, change):
    def items(amount):
        return read_items([{"id": "cn", "amount": amount}, {"id": "de", "amount": 7}]).all

    first = Ledger(storage(), items(5), WORK)
    first.begin([(items(5)[0], 1), (items(5)[1], 1)], "sandbox-1")
    finish(first, *items(5))
    if change == "value":
        again = Ledger(storage(), items(6), WORK)
        assert again.resumed == {"de"}
        assert again.attempts["cn"] == 1 and "cn" not in again.status
    else:
        assert Ledger(storage(), items(5), Identity("count", "another env", "count")).resumed == set()


def test_a_file_is_another_item_when_its_content_changes(tmp_path, storage):
    directory = tmp_path / "files"
    directory.mkdir()
    for name in "ab":
        (directory / name).write_text("1")
    finish(Ledger(storage(), read_items(directory).all, WORK), *read_items(directory).all)
    (directory / "a").write_text("2")
    assert Ledger(storage(), read_items(directory).all, WORK).resumed == {"b"}


class Failing(DirectoryStorage):
    """A directory whose appends fail some times, behind half of the record."""

    failures = 0

    def append(self, name, content):
        if self.failures:
            self.failures -= 1
            super().append(name, content[: len(content) // 2])
            raise OSError("503 SlowDown")
        super().append(name, content)


def test_a_write_that_fails_is_repeated_and_given_up_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "PATIENCE", 1.0)
    storage = Failing(tmp_path)
    ledger = Ledger(storage, ITEMS, WORK)
    storage.failures = 2
    finish(ledger, ITEMS[0])
    assert Ledger(DirectoryStorage(tmp_path), ITEMS, WORK).resumed == {"item-0"}
    storage.failures = sys.maxsize
    with pytest.raises(ResultsError, match="503 SlowDown"):
        finish(ledger, ITEMS[1])
    # What was written in part counts as never written.
    again = Ledger(DirectoryStorage(tmp_path), ITEMS, WORK)
    finish(again, ITEMS[2])
    assert Ledger(DirectoryStorage(tmp_path), ITEMS, WORK).resumed == {"item-0", "item-2"}


def test_nothing_is_recorded_by_a_run_that_lost_its_location(storage):
    def lost():
        raise ConfigurationError("lost")

    ledger = Ledger(storage(), ITEMS, WORK, lost)
    with pytest.raises(ConfigurationError, match="lost"):
        finish(ledger, ITEMS[0])
    assert Ledger(storage(), ITEMS, WORK).resumed == set()


def test_a_failed_write_to_an_object_store_is_not_repeated_in_the_next_one(tmp_path, monkeypatch):
    filesystem = LocalFileSystem(basepath=str(tmp_path))
    storage, fails = PrefectStorage(filesystem), [True]
    write = storage.write

    def failing(name, content):
        if fails.pop() if fails else False:
            raise OSError("503 SlowDown")
        write(name, content)

    monkeypatch.setattr(storage, "write", failing)
    storages.repeated(storage, lambda: storage.append("part", b"line\n"))
    assert storage.read("part") == b"line\n"
