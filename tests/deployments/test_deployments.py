"""prefect.yaml, serve.py, the automations and the compose file: what can be checked without running them."""

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from typer.testing import CliRunner

from ags_flows.cli import app
from ags_flows.cli.doctor import examine
from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.flows import reap
from ags_flows.run.automations import LOST_RUNS, lost_runs_file, sync_automations

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
AUTOMATIONS = sorted((DEPLOYMENTS / "automations").glob("*.yaml"))


@pytest.fixture
def server(clean_server, registering, serving, monkeypatch):
    """A server with what automations refer to."""
    monkeypatch.setenv("AGS_NOTIFY_URL", "http://127.0.0.1:9/hook")
    list(registering.register([ROOT / "blocks" / "notifications.yaml"]))
    serving.read_deployments()["reap/reap-one-run"].apply()
    return clean_server


def changes(files):
    return [one.change for one in sync_automations(files)]


def test_the_deployments_are_what_the_flows_take(serving):
    known = serving.read_deployments()
    flows = {name.partition("/")[0] for name in known}
    assert flows >= {"provision-and-run", "run-batch", "reap", "sync-tools", "usage-report", "run-job"}
    for name, deployment in known.items():
        assert deployment.entrypoint.startswith("ags_flows.flows."), name
        schema = deployment._parameter_openapi_schema.properties
        assert set(deployment.parameters) <= set(schema), name
        assert ("sandboxes" in deployment.tags) == (not name.startswith(("reap", "sync-tools", "usage-report"))), name


def test_the_nightly_reap_knows_its_time_zone_and_runs_once_at_a_time(serving):
    nightly = serving.read_deployments()["reap/nightly-reap"]
    (schedule,) = nightly.schedules
    assert (schedule.active, schedule.schedule.timezone) == (True, "Asia/Shanghai")
    assert nightly.concurrency_limit == 1


def test_the_server_creates_the_runs_of_a_schedule(server, serving):
    deployment = serving.read_deployments()["reap/nightly-reap"].apply()
    answer = server._client.post(f"/deployments/{deployment}/schedule", json={"min_runs": 2})
    assert answer.status_code == 200, answer.text
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    waiting = server.read_flow_runs(deployment_filter=chosen)
    assert len(waiting) >= 2
    china = {run.next_scheduled_start_time.astimezone(ZoneInfo("Asia/Shanghai")).strftime("%H:%M") for run in waiting}
    assert china == {"04:30"}
    server.delete_deployment(deployment)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schedules": [{"cron": "0 0 30 2 *"}]}, "never fires"),
        ({"schedules": [{"cron": "99 * * * *"}]}, "Invalid cron"),
        ({"schedules": [{"cron": "0 3 * * *", "timezone": "Asia/Nowhere"}]}, "Invalid timezone"),
        ({"entrypoint": "ags_flows.flows.nothing:nothing"}, "is not a flow"),
    ],
)
def test_a_deployment_that_could_not_run_is_refused(serving, tmp_path, change, told):
    entry = {"name": "wrong", "entrypoint": "ags_flows.flows.reap:reap", **change}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [entry]}))
    with pytest.raises(ConfigurationError, match=told):
        serving.read_deployments(tmp_path / "prefect.yaml")


def test_the_doctor_names_a_deployment_whose_schedule_never_fires(server, serving, monkeypatch, ags_emulator):
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    fires = serving.read_deployments()["reap/nightly-reap"].apply()
    server._client.post(f"/deployments/{fires}/schedule", json={"min_runs": 1}).raise_for_status()
    never = reap.to_deployment("never", cron="0 0 30 2 *").apply()
    found = next(finding for finding in examine() if finding.check == "schedules")
    assert (found.verdict, found.finding) == ("warning", "missing: the next run of reap/never")
    for deployment in (fires, never):
        server.delete_deployment(deployment)


def test_automations_are_created_once_left_alone_and_brought_up_to_date(server, tmp_path):
    assert changes(AUTOMATIONS) == ["created"] * len(AUTOMATIONS)
    assert changes(AUTOMATIONS) == ["left"] * len(AUTOMATIONS)
    assert changes([]) == ["left"]
    patient = tmp_path / "patient.yaml"
    patient.write_text(lost_runs_file().read_text().replace("within: 540", "within: 900"))
    assert changes([patient]) == ["changed"]
    (known,) = server.read_automations_by_name(LOST_RUNS)
    assert known.trigger.within.total_seconds() == 900
    assert len(server.read_automations()) == len(AUTOMATIONS)


def test_an_automation_that_was_switched_off_stays_off(server):
    changes([])
    (known,) = server.read_automations_by_name(LOST_RUNS)
    server.pause_automation(known.id)
    assert changes([]) == ["left"]
    assert not server.read_automations_by_name(LOST_RUNS)[0].enabled


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\ntrigger: {type: event, posture: Reactive}\nactions: [{type: nonsense}]", "'nonsense'"),
        ("name: x\ntrigger: {type: event, posture: Reactive, threshold: many}\nactions: []", "threshold"),
        (
            "name: x\ntrigger: {type: event, posture: Reactive}\n"
            "actions: [{type: run-deployment, deployment: reap/never}]",
            "no deployment 'reap/never'",
        ),
        (
            "name: x\ntrigger: {type: event, posture: Reactive}\n"
            "actions: [{type: send-notification, block: custom-webhook/missing, body: b}]",
            "no block 'custom-webhook/missing'",
        ),
        ("[]", "holds no automation"),
        ("{", "YAML"),
    ],
)
def test_a_wrong_automation_is_reported_and_none_is_changed(server, tmp_path, text, told):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        sync_automations([lost_runs_file(), wrong])
    assert server.read_automations() == []


def test_the_command_prints_what_it_did(server):
    told = CliRunner().invoke(app, ["automations", *map(str, AUTOMATIONS)]).stdout.splitlines()
    assert "created  ags-flows: notify of a failed batch" in told
    listed = json.loads(CliRunner().invoke(app, ["automations", "--json"]).stdout)
    assert listed == [{"name": LOST_RUNS, "change": "left"}]


def test_a_server_that_does_not_respond_is_reported():
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        with pytest.raises(UnreachableError, match="does not respond"):
            sync_automations()
