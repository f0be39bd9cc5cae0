"""Assets that runs produce."""

import time

import pytest
from prefect.client.orchestration import get_client

from ags_flows.errors import ConfigurationError
from ags_flows.flows import run_batch
from ags_flows.run.assets import check_assets, materialize_assets


@pytest.mark.parametrize("key", ["out.csv", "", "s3:/bucket/x", "/tmp/x"])
def test_a_key_that_is_not_a_uri_is_refused_with_an_example(key):
    with pytest.raises(ConfigurationError, match=r"is not the key of an asset.*such as s3://bucket/orders.parquet"):
        check_assets([key])


def test_outside_of_a_flow_run_assets_are_logged_and_not_recorded(caplog):
    with caplog.at_level("INFO"):
        materialize_assets(["s3://bucket/x"], {})
    assert "Assets are not recorded outside of a flow run: s3://bucket/x" in caplog.text


@pytest.mark.usefixtures("prefect_server")
def test_a_batch_materializes_its_assets_with_its_counts(ags_config, tmp_path):
    options = {"results": str(tmp_path), "fail_above": 0.5, "task_runs": "none", "config": ags_config}
    report = run_batch(["a", "b"], 'test "$ITEM" = a', "base", assets=["s3://bucket/batch"], **options)
    assert report.failed == 1
    query = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}}
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            events = client.request("POST", "/events/filter", json=query).json()["events"]
            found = [one for one in events if one["resource"]["prefect.resource.id"] == "s3://bucket/batch"]
            if found:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert found[0]["payload"] == {"items": 2, "succeeded": 1, "failed": 1, "results": report.results}
