"""Block documents and limits as code: created once, updated where they differ, and nothing half done."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from ags_flows import AGSConfig, SandboxJob, TencentCloudCredentials
from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.flows import run_batch

FILES = sorted((Path(__file__).parents[2] / "blocks").glob("*.yaml"))


@pytest.fixture
def register(registering, clean_server):
    def register(*files):
        return {what.partition(":")[0].partition(" ")[2]: change for change, what in registering.register(list(files))}

    return register


@pytest.fixture
def document(tmp_path):
    def document(text):
        file = tmp_path / "document.yaml"
        file.write_text(text)
        return file

    return document


def test_all_files_are_registered_once_and_left_alone_the_second_time(register, monkeypatch):
    monkeypatch.setenv("AGS_NOTIFY_URL", "http://127.0.0.1:9/hook")
    first = register(*FILES)
    left_out = "tencent-cloud-credentials/stored"
    assert first.pop(left_out) == "left out" and set(first.values()) == {"created"}
    second = register(*FILES)
    assert second.pop(left_out) == "left out" and set(second.values()) == {"left"}
    assert AGSConfig.load("ap-shanghai").domain == "ap-shanghai.tencentags.com"
    assert SandboxJob.load("example").tool == "example-job"


def test_a_key_comes_from_the_environment_and_a_new_one_is_noticed(register, monkeypatch):
    file = next(one for one in FILES if one.stem == "credentials")
    monkeypatch.setenv("AGS_STORED_SECRET_ID", "AKIDstored")
    monkeypatch.setenv("AGS_STORED_SECRET_KEY", "before")
    assert register(file)["tencent-cloud-credentials/stored"] in ("created", "changed")
    monkeypatch.setenv("AGS_STORED_SECRET_KEY", "after")
    assert register(file)["tencent-cloud-credentials/stored"] == "changed (secret_key)"
    assert TencentCloudCredentials.load("stored").secret_key.get_secret_value() == "after"


def test_what_a_file_does_not_name_stays_as_it_was_edited(register, document):
    file = document("- block: ags-config/edited\n  fields: {region: ap-shanghai}\n")
    register(file)
    edited = AGSConfig.load("edited")
    edited.lease = "20m"
    edited.save("edited", overwrite=True)
    assert register(document("- block: ags-config/edited\n  fields: {region: ap-beijing}\n")) == {
        "ags-config/edited": "changed (region)"
    }
    assert (AGSConfig.load("edited").lease, AGSConfig.load("edited").region) == ("20m", "ap-beijing")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("- block: ags-config/x\n  fields: {regoin: ap-shanghai}", "has no field 'regoin'"),
        ("- block: ags-config/x\n  fields: {lease: 5s}", "lease"),
        ("- block: no-such-type/x", "no block type 'no-such-type'"),
        ("- block: ags-config/x\n  fields: {credentials: {block: tencent-cloud-credentials/nowhere}}", "nowhere"),
        ("- block: ags-config/x\n  fields: {credentials: {block: ags-config/x}}", "refers to itself"),
        ("- limit: x\n  slots: 0", "slots"),
        ("- something: else", "neither"),
        ("- {", "YAML"),
    ],
)
def test_a_wrong_file_is_reported_and_nothing_is_written(register, document, wrong, told):
    with pytest.raises(ConfigurationError, match=told):
        register(document(f"- limit: never-made\n  slots: 3\n{wrong}\n"))
    with get_client(sync_client=True) as client:
        assert "never-made" not in {one.name for one in client.read_global_concurrency_limits(limit=100)}


def test_a_server_that_does_not_respond_is_reported(registering, monkeypatch):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        with pytest.raises(UnreachableError, match="does not respond"):
            list(registering.register(FILES))


def test_a_batch_starts_no_faster_than_its_rate_limit(register, document, ags_config):
    register(document("- limit: slow-starts\n  slots: 1\n  per_second: 0.5\n- limit: no-rate\n  slots: 1\n"))
    options = {"items_per_sandbox": 1, "sandboxes": 3, "task_runs": "none", "config": ags_config}
    report = run_batch(["a", "b", "c"], "true", "base", rate_limit="slow-starts", **options)
    # One immediately, and then one every two seconds.
    assert report.succeeded == 3 and report.seconds >= 3.5
    with pytest.raises(ConfigurationError, match="is not a rate"):
        run_batch(["a"], "true", "base", rate_limit="no-rate", **options)
