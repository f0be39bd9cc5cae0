"""`ags-flows doctor`: what it checks, and what it prints."""

import json
import time
from importlib import metadata

import pytest
from prefect.client.schemas.actions import WorkPoolCreate

from ags_flows.cli import doctor


def findings(done):
    return {one["check"]: one for one in json.loads(done.stdout)}


@pytest.mark.timeout(120)
def test_doctor_finds_what_is_right_and_what_is_wrong(cli, prefect_server):
    well = cli("doctor", "--json", server=None)
    found = findings(well)
    assert well.exit_code == 0, well.stdout
    right = ("configuration", "AGS", "clock", "data plane", "credentials", "quota", "Prefect server", "packages")
    assert {found[check]["verdict"] for check in right} == {"ok"}
    ill = cli("doctor", "--json", server="http://127.0.0.1:9/api", TENCENTCLOUD_SECRET_KEY="wrong")
    found = findings(ill)
    assert ill.exit_code == 1
    assert "AuthFailure.SignatureFailure" in found["credentials"]["finding"]
    assert "http://127.0.0.1:9/api does not respond" in found["Prefect server"]["finding"]


def test_an_emulator_that_does_not_run_is_not_reported_as_wrong_credentials(cli):
    done = cli("doctor", "--json", AGS_ENDPOINT="http://127.0.0.1:9")
    found = findings(done)
    assert done.exit_code == 1
    assert found["AGS"]["verdict"] == "wrong" and "ags-flows emulator" in found["AGS"]["remedy"]
    assert "Check AGS_ENDPOINT" in found["AGS"]["remedy"]
    assert found["credentials"]["verdict"] == "skipped"


@pytest.mark.parametrize(
    ("environment", "check", "said"),
    [
        ({"TENCENTCLOUD_SECRET_ID": ""}, "credentials", "TENCENTCLOUD_SECRET_ID not set"),
        ({}, "Prefect server", "PREFECT_API_URL is not set"),
        (
            {"AGS_REGION": "ap-guangzhou", "AGS_DOMAIN": "ap-shanghai.tencentags.com"},
            "configuration",
            "disagree",
        ),
    ],
    ids=["keys", "server", "domain"],
)
def test_a_setting_that_is_missing_or_wrong_is_named(environment, check, said, cli):
    assert said in findings(cli("doctor", "--json", **environment))[check]["finding"]


def test_block_types_that_the_server_does_not_have_are_named(cli, clean_server):
    for slug in doctor.BLOCK_TYPES:
        try:
            clean_server.delete_block_type(clean_server.read_block_type_by_slug(slug).id)
        except Exception:  # noqa: BLE001 - it is not there
            continue
    found = findings(cli("doctor", "--json", server=None))["blocks"]
    assert found["verdict"] == "warning"
    assert all(slug in found["finding"] for slug in ("ags-config", "tencent-cloud-credentials", "ags-sandbox-job"))


def test_a_deployment_whose_runs_nothing_executes_is_named_with_what_to_start(cli, clean_server):
    pool = clean_server.create_work_pool(WorkPoolCreate(name="idle", type="process"))
    flow_id = clean_server.create_flow_from_name("nightly")
    deployment = clean_server.create_deployment(flow_id, "at-three", work_pool_name=pool.name)
    try:
        found = findings(cli("doctor", "--json", server=None))["workers"]
        assert found["verdict"] == "warning"
        assert "nightly/at-three" in found["finding"]
        assert "prefect worker start --pool idle" in found["remedy"]
        # A worker that asks for runs makes the deployment ready.
        clean_server.get_scheduled_flow_runs_for_work_pool(pool.name)
        deadline = time.monotonic() + 30
        while clean_server.read_deployment(deployment).status != "READY":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert findings(cli("doctor", "--json", server=None))["workers"]["verdict"] == "ok"
    finally:
        clean_server.delete_deployment(deployment)


@pytest.mark.parametrize(
    ("versions", "verdict"),
    [
        ({"prefect": "3.9.1", "fastapi": "0.150.0", "sqlalchemy": "2.1.9"}, "ok"),
        ({"prefect": "3.8.8", "fastapi": "0.150.0", "sqlalchemy": "2.0.40"}, "ok"),
        ({"prefect": "3.8.8", "fastapi": "0.165.0", "sqlalchemy": "2.0.40"}, "warning"),
        ({"prefect": "3.8.8", "fastapi": "0.150.0", "sqlalchemy": "2.1.0"}, "warning"),
    ],
    ids=str,
)
def test_packages_that_break_the_server_of_an_older_prefect_are_named(versions, verdict, monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: versions.get(name) or metadata.version(name))
    found = doctor._packages()
    assert found.verdict == verdict
    if verdict == "warning":
        assert "pip install" in found.remedy
