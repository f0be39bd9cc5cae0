import json
import threading
import time

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)

from ags_flows.batch import limits
from ags_flows.errors import BatchFailedError, ConfigurationError
from ags_flows.flows import run_batch, run_items

pytestmark = pytest.mark.usefixtures("prefect_server")

PASSWORD = "correct-horse-battery-9781"


def artifact(key):
    with get_client(sync_client=True) as client:
        wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
        return client.read_latest_artifacts(artifact_filter=wanted)[0]


def test_a_batch_has_a_task_run_for_each_chunk_a_progress_and_a_table(ags_config, tmp_path, caplog):
    items = [{"id": str(number)} for number in range(120)]
    state = run_batch(
        items,
        'echo "$ITEM_ID"; test "$ITEM_ID" != 5',
        "base",
        sandboxes=4,
        durable=False,
        results=str(tmp_path),
        config=ags_config,
        return_state=True,
    )
    report = state.result()
    assert (report.succeeded, report.failed) == (119, 1)
    assert state.message == "119 of 120 items succeeded, 1 failed."
    assert "Item 5 failed: ExitCode: exit code 1" in caplog.text
    assert float(artifact("batch-progress").data) == 100.0
    rows = json.loads(artifact("batch-results").data)
    assert (rows[0]["item"], rows[0]["outcome"], rows[0]["exit code"]) == ("5", "failed", "1")
    with get_client(sync_client=True) as client:
        deadline, runs = time.monotonic() + 30, []
        while time.monotonic() < deadline and [run.state.is_final() for run in runs] != [True, True]:
            only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
            runs = client.read_task_runs(flow_run_filter=only)
            time.sleep(0.5)
    # No step waits for a tool that is ready, and no tag of a task run costs the server a slot.
    assert [run.tags for run in runs] == [[], []]
    assert {run.name: (run.state.name, run.state.message) for run in runs} == {
        "items 1 to 100": ("Failed", "99 of 100 items succeeded, 1 failed."),
        "items 101 to 120": ("Completed", "20 items succeeded."),
    }


def test_a_function_is_named_and_items_can_be_task_runs(ags_config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "named_work.py").write_text(
        "def double(sandbox, item):\n    return int(sandbox.run(f'echo $(( {item} * 2 ))').stdout)\n"
    )
    report = run_batch(
        [1, 2],
        tool="base",
        function="named_work:double",
        task_runs="items",
        results=str(tmp_path / "out"),
        config=ags_config,
    )
    values = [json.loads(line)["value"] for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert (report.succeeded, values) == (2, [2, 4])
    with pytest.raises(ConfigurationError, match="cannot be found"):
        run_batch([1], tool="base", function="named_work:triple", config=ags_config)


def test_results_go_to_the_runs_result_storage_by_default_and_failures_fail_the_run(ags_config):
    with pytest.raises(BatchFailedError, match="2 of 2 items failed") as caught:
        run_batch(["a", "b"], "exit 9", "base", fail_above=0.6, sandboxes=2, config=ags_config)
    assert "ags-flows/batches/" in caught.value.report.results


def test_a_global_concurrency_limit_is_never_exceeded_by_two_batches(ags_config, tmp_path):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="sandboxes", limit=2))
    most, reports = [], []

    def batch(name):
        options = {"concurrency_limit": "sandboxes", "sandboxes": 3, "config": ags_config}
        reports.append(run_batch(list("abcd"), "sleep 0.3", "base", results=str(tmp_path / name), **options))

    threads = [threading.Thread(target=batch, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    control = ags_config.control_plane()
    while any(thread.is_alive() for thread in threads):
        most.append(sum(one.status in ("STARTING", "RUNNING") for one in control.list_instances()))
        time.sleep(0.05)
    assert [report.succeeded for report in reports] == [4, 4]
    assert 1 <= max(most) <= 2


def test_slots_of_a_global_concurrency_limit_are_given_back(ags_config, tmp_path):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="given-back", limit=1))
        options = {"concurrency_limit": "given-back", "results": tmp_path, "config": ags_config, "sandboxes": 3}
        report = run_items(list("abcd"), lambda sandbox, item: item, tool="base", **options)
        assert (report.succeeded, report.started) == (4, 1)
        assert client.read_global_concurrency_limit_by_name("given-back").active_slots == 0


def test_a_batch_that_waits_for_a_slot_logs_no_errors(ags_config, tmp_path, caplog, monkeypatch):
    looks, is_full = [], limits._is_full
    monkeypatch.setattr(limits, "_is_full", lambda name: looks.append(name) or is_full(name))
    monkeypatch.setattr(limits, "LOOK", 0.5)
    monkeypatch.setattr(limits, "PAUSE", 0.2)
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="busy", limit=1, active_slots=1))
        options = {"concurrency_limit": "busy", "results": tmp_path, "config": ags_config, "tool": "base"}
        batch = threading.Thread(target=run_items, args=(["a"], lambda sandbox, item: item), kwargs=options)
        batch.start()
        while len(looks) < 5:
            time.sleep(0.05)
        client.update_global_concurrency_limit("busy", GlobalConcurrencyLimitUpdate(active_slots=0))
        batch.join()
    assert (tmp_path / "results.jsonl").exists()
    assert "failed to process" not in caplog.text


def test_a_limit_that_does_not_exist_is_reported_before_anything_is_started(ags_config):
    with pytest.raises(ConfigurationError, match="no such global concurrency limit"):
        run_batch(["a"], "true", "base", concurrency_limit="nowhere", config=ags_config)
    assert not ags_config.control_plane().list_instances()


def test_items_are_data_for_prefect_too(ags_config, tmp_path):
    items = [{"id": "a", "$ref": {"block_document_id": "x"}}, {"id": "b", "nested": [{"$ref": "y"}]}]
    run_batch(items, 'echo "$ITEM"', "base", sandboxes=1, results=str(tmp_path), config=ags_config)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(json.loads(line)["stdout"]) for line in lines] == items


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"id": "a", "n": float("nan")}], "item 0 is not JSON .key 'a', field 'n'."),
        ([{"id": "a", "text": "x\0y"}], "item 0, key 'a' .field 'text'., has the character U.0000"),
        (["ok", "x\0y"], "item 1, key 'x.x00y', has the character"),
    ],
)
def test_items_that_no_command_can_get_are_refused(ags_config, tmp_path, items, message):
    with pytest.raises(ConfigurationError, match=message):
        run_batch(items, "true", "base", results=str(tmp_path / "out"), config=ags_config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task_runs", ["chunks", "items"])
def test_a_secret_in_the_key_of_an_item_is_shown_nowhere(ags_config, tmp_path, caplog, task_runs):
    Secret(value=PASSWORD).save("of-keys", overwrite=True)
    state = run_batch(
        [{"id": f"user:{PASSWORD}"}, {"id": "other"}],
        'test "$ITEM_ID" = other',
        "base",
        sandboxes=1,
        secrets={"TOKEN": "of-keys"},
        results=str(tmp_path),
        task_runs=task_runs,
        config=ags_config,
        return_state=True,
    )
    report = state.result(raise_on_failure=False)
    rows = artifact("batch-results").data
    assert "user:" in caplog.text and "user:" in rows
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        names = [run.name for run in client.read_task_runs(flow_run_filter=wanted)]
    for shown in (caplog.text, rows, str(report), str(state.message), *names):
        assert PASSWORD not in shown
