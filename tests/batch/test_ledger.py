import pytest
from prefect.filesystems import LocalFileSystem, RemoteFileSystem

from ags_flows.batch.items import read_items
from ags_flows.batch.ledger import Begun, Ledger
from ags_flows.batch.storage import DirectoryStorage, PrefectStorage, storage_at
from ags_flows.errors import ConfigurationError
from ags_flows.models import ItemResult

ITEMS = read_items([f"item-{number}" for number in range(250)]).all


@pytest.fixture(params=["directory", "object store"])
def storage(request, tmp_path):
    if request.param == "directory":
        return lambda: DirectoryStorage(tmp_path / "deep" / "er")
    return lambda: PrefectStorage(RemoteFileSystem(basepath=f"memory://{tmp_path.name}"), "batch/")


def ok(item):
    return ItemResult(key=item.key, index=item.index, status="ok", value={"n": item.index})


def test_whoever_goes_on_knows_what_is_done_and_what_was_begun(storage):
    first = Ledger(storage(), ITEMS)
    for item in (ITEMS[0], ITEMS[120]):
        first.begin(item, "sandbox-1", 1)
        first.finish(item, ok(item))
    first.begin(ITEMS[1], "sandbox-1", 1)
    first.begin(ITEMS[2], "sandbox-1", 1)
    first.finish(ITEMS[2], ItemResult(key="item-2", index=2, status="failed", error="no"))
    second = Ledger(storage(), ITEMS)
    assert second.resumed == {"item-0", "item-120"}
    assert second.begun == {"item-1": Begun("sandbox-1", 1)}
    assert second.attempts["item-2"] == 1
    assert second.results["item-120"].value == {"n": 120}


def test_a_line_that_was_cut_counts_as_never_written(tmp_path):
    storage = DirectoryStorage(tmp_path)
    Ledger(storage, ITEMS).finish(ITEMS[0], ok(ITEMS[0]))
    storage.append("ledger-00000.jsonl", b'{"key": "item-1", "ind')
    again = Ledger(storage, ITEMS)
    assert again.resumed == {"item-0"}
    again.finish(ITEMS[2], ok(ITEMS[2]))
    assert Ledger(storage, ITEMS).resumed == {"item-0", "item-2"}


def test_results_are_written_in_the_order_of_the_items(storage):
    ledger = Ledger(storage(), ITEMS)
    for item in (ITEMS[200], ITEMS[3]):
        ledger.finish(item, ok(item))
    assert ledger.write_results().endswith("results.jsonl")
    lines = storage().read("results.jsonl").splitlines()
    assert [ItemResult.model_validate_json(line).index for line in lines] == [3, 200]


@pytest.mark.parametrize("place", ["/proc/nowhere", "nosuch://bucket/runs"])
def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_started(place):
    with pytest.raises(ConfigurationError, match=r"results: .* cannot be .* Nothing was started"):
        Ledger(storage_at(place), ITEMS).prepare()


def test_a_store_that_cannot_be_read_now_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "batch" / "ledger-00000.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot be read: ValueError: Path .* is not a file"):
        Ledger(PrefectStorage(LocalFileSystem(basepath=str(tmp_path)), "batch/"), ITEMS)


def test_the_place_of_another_batch_is_refused(storage):
    Ledger(storage(), ITEMS).finish(ITEMS[0], ok(ITEMS[0]))
    with pytest.raises(ConfigurationError, match="batch of other items"):
        Ledger(storage(), read_items(["a", "b"]).all)
