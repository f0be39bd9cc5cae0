"""Blocks as documents of a Prefect server: saved, changed, and of older versions."""

import logging
import os
import subprocess
import sys

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate, BlockSchemaCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.sorting import LogSort
from prefect.plugins import load_prefect_collections
from prefect.settings import PREFECT_API_URL

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials
from ags_flows.errors import BlockError
from ags_flows.flows import usage_report

pytestmark = pytest.mark.usefixtures("prefect_server")


def document(name, slug="ags-config"):
    with get_client(sync_client=True) as client:
        return client.read_block_document_by_name(name, slug)


def change(name, **data):
    """What the form of the Prefect UI does: send fields that changed."""
    url = f"{PREFECT_API_URL.value()}/block_documents/{document(name).id}"
    httpx.patch(url, json={"data": data, "merge_existing_data": True}, trust_env=False).raise_for_status()


def test_blocks_are_registered_automatically():
    assert "ags_flows" in load_prefect_collections()
    with get_client(sync_client=True) as client:
        for block in (AGSConfig, SandboxJob, TencentCloudCredentials):
            block.register_type_and_schema()
            known = client.read_block_type_by_slug(block.get_block_type_slug())
            assert "import" in known.code_example
            assert known.description.endswith(".")


def test_a_saved_block_keeps_its_fields_and_follows_its_credentials(monkeypatch):
    keys = TencentCloudCredentials(secret_id="first", secret_key="very-secret")
    keys.save("followed-keys")
    saved = AGSConfig(region="ap-shanghai", timeout="20m", credentials=TencentCloudCredentials.load("followed-keys"))
    saved.save("followed")
    monkeypatch.setenv("AGS_TIMEOUT", "5m")
    loaded = AGSConfig.load("followed")
    assert (loaded.region, loaded.timeout) == ("ap-shanghai", "20m")
    TencentCloudCredentials(secret_id="second", secret_key="very-secret").save("followed-keys", overwrite=True)
    assert AGSConfig.load("followed").connection().require_keys() == ("second", "very-secret")
    with get_client(sync_client=True) as client:
        shown = client.read_block_document_by_name("followed-keys", "tencent-cloud-credentials", include_secrets=False)
    assert "very-secret" not in shown.model_dump_json()


def test_a_region_that_is_changed_in_the_form_takes_the_domain_with_it():
    AGSConfig(region="ap-shanghai").save("moved")
    change("moved", region="ap-beijing")
    assert AGSConfig.load("moved").domain == "ap-beijing.tencentags.com"


def test_an_explicit_domain_stays():
    AGSConfig(http_endpoint="http://127.0.0.1:8600", domain="http://127.0.0.1:8700").save("own-domain")
    assert AGSConfig.load("own-domain").domain == "http://127.0.0.1:8700"


def test_a_wrong_field_of_a_document_is_reported_with_its_rule():
    AGSConfig().save("spoilt")
    change("spoilt", timeout="10s")
    with pytest.raises(BlockError, match=r"timeout.*30s to 24h"):
        AGSConfig.load("spoilt")


def test_a_document_of_an_older_version_loads_and_is_upgraded_by_saving_it():
    AGSConfig.register_type_and_schema()
    text = {"type": "string", "default": ""}
    older = {"title": "AGSConfig", "type": "object", "properties": {"region": text, "secret_id": text, "gone": text}}
    with get_client(sync_client=True) as client:
        kind = client.read_block_type_by_slug("ags-config")
        schema = client.create_block_schema(BlockSchemaCreate(fields=older, block_type_id=kind.id, capabilities=[]))
        data = {"region": "ap-shanghai", "secret_id": "old-id", "gone": "x"}
        made = BlockDocumentCreate(name="upgraded", data=data, block_schema_id=schema.id, block_type_id=kind.id)
        client.create_block_document(made)
    config = AGSConfig.load("upgraded")
    assert (config.region, config.domain) == ("ap-shanghai", "ap-shanghai.tencentags.com")
    assert (config.timeout, config.secret_id.get_secret_value()) == ("1h", "old-id")
    config.save("upgraded", overwrite=True)
    assert document("upgraded").data["lease"] == "15m"
    assert AGSConfig.load("upgraded").region == "ap-shanghai"


WRONG = {
    "region": ("Guangzhou!", "region: 'Guangzhou!' is not a region"),
    "lease": ("5 minutes", "lease: '5 minutes' is not a duration. Write hours, minutes and seconds"),
    "timeout": ("11s", "timeout: '11s' is out of range. AGS takes timeouts from 30s to 24h"),
    "port": (0, "port: Input should be greater than or equal to 1 (got 0)"),
    "cpu": ("many", "cpu: 'many' is not an amount of CPU"),
}


@pytest.mark.parametrize("field", WRONG)
def test_an_invalid_saved_block_fails_the_run_with_one_sentence_at_the_top_of_its_log(field, caplog):
    value, sentence = WRONG[field]
    AGSConfig().save("mistyped", overwrite=True)
    change("mistyped", **{field: value})
    reference = {"$ref": {"block_document_id": str(document("mistyped").id)}}
    with caplog.at_level("ERROR", logger="prefect.flow_runs"):
        state = usage_report(config=reference, return_state=True)
    first = caplog.messages[0]
    assert f"The AGS Config block 'mistyped' is not valid: {sentence}" in first
    assert first.count("is not valid") == 1
    assert sentence in state.message


@pytest.mark.parametrize("by", ["reference", pytest.param("name", marks=pytest.mark.long)])
def test_the_log_of_a_run_in_a_process_begins_with_the_sentence(by):
    AGSConfig().save("mistyped-too", overwrite=True)
    change("mistyped-too", lease="5 minutes")
    chosen = {"$ref": {"block_document_id": str(document("mistyped-too").id)}} if by == "reference" else "mistyped-too"
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(usage_report, parameters={"config": chosen})
        started = {
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "PREFECT_LOGGING_TO_API_ENABLED": "true",
            "PREFECT__FLOW_RUN_ID": str(run.id),
            "PREFECT__FLOW_ENTRYPOINT": "ags_flows.flows.usage_report:usage_report",
        }
        command = [sys.executable, "-m", "prefect.engine"]
        done = subprocess.run(command, env={**os.environ, **started}, capture_output=True, text=True, timeout=120)
        errors = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]), level=LogFilterLevel(ge_=logging.ERROR))
        logged = client.read_logs(log_filter=errors, sort=LogSort.TIMESTAMP_ASC)
    assert logged, done.stderr
    assert logged[0].message.startswith("The AGS Config block 'mistyped-too' is not valid: lease: '5 minutes'")
    assert len(logged[0].message.splitlines()) == 1
