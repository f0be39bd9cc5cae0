"""What all tests share. Fixtures for the emulator come with the package itself (`ags_flows.testing`)."""

import json

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness

FOREIGN = ("AGS_", "TENCENTCLOUD_", "E2B_")


@pytest.fixture(scope="session", autouse=True)
def no_foreign_environment():
    """Keep tests away from real accounts, whatever the shell that started them exports."""
    import os

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def prefect_server():
    """One Prefect server with a database of its own for each worker of the test run."""
    # A flow run waits up to a second for the thread of its heartbeats: off, where they are not the point.
    with temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: False}):
        with prefect_test_harness(server_startup_timeout=180):
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                yield


@pytest.fixture
def evaluation_files(tmp_path):
    """Write a data set of one instance, and a prediction without a patch for it."""
    prediction = {"instance_id": "demo__demo-1", "model_patch": "", "model_name_or_path": "model"}
    names = ("image", "repo", "version", "eval_script", "FAIL_TO_PASS", "PASS_TO_PASS")
    instance = {**dict.fromkeys(names, "[]"), "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail"}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(prediction))
    (tmp_path / "dataset.jsonl").write_text(json.dumps({**instance, "instance_id": "demo__demo-1", "image": "demo:1"}))
