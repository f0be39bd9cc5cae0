"""The rule that a lease must outlive the detection of a lost run, and where it is reported."""

import json
from datetime import timedelta

import pytest
import yaml
from prefect.automations import AutomationCore
from typer.testing import CliRunner

from ags_flows.blocks import AGSConfig
from ags_flows.cli import app
from ags_flows.cli.doctor import examine
from ags_flows.errors import ConfigurationError
from ags_flows.run.automations import detection_time, explain_lease, lost_runs_file, sync_automations

TOO_SHORT = (
    "a killed process leaves 450 s of the lease (600s), but its run is marked as Crashed only after 540 s, when AGS "
    "may have stopped its sandbox: set a lease of at least 721s (AGS_LEASE, or the field lease of AGSConfig), or a "
    "shorter `within`"
)


def automation(**trigger):
    content = yaml.safe_load(lost_runs_file().read_text())
    return AutomationCore.model_validate({**content, "trigger": {**content["trigger"], **trigger}})


@pytest.fixture
def server(clean_server, ags_emulator, monkeypatch):
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return clean_server


def lease_finding():
    return next(finding for finding in examine() if finding.check == "lease")


def test_the_default_lease_outlives_the_detection_of_a_lost_run():
    detection = detection_time(automation())
    assert detection == 540
    assert AGSConfig().lease_seconds == 900
    assert explain_lease(900, detection)[0]


def test_the_rule_is_strict_and_its_sentence_names_both_figures():
    assert explain_lease(600, 540) == (False, TOO_SHORT)
    assert not explain_lease(720, 540)[0]
    holds, sentence = explain_lease(721, 540)
    assert holds
    assert sentence == (
        "a killed process leaves 540.75 s of the lease (721s), more than the 540 s after which its run is marked as "
        "Crashed"
    )


def test_the_detection_time_is_that_of_automations_that_miss_heartbeats():
    assert detection_time(automation(within=90)) == 90
    assert detection_time(automation(within=timedelta(minutes=2))) == 120
    assert detection_time(automation(after=["prefect.flow-run.Running"])) is None
    assert detection_time(automation(posture="Reactive", within=0)) is None


def test_the_command_warns_of_a_lease_that_is_too_short(server, monkeypatch):
    monkeypatch.setenv("AGS_LEASE", "10m")
    for change in ("created", "left"):
        called = CliRunner().invoke(app, ["automations"])
        assert called.exit_code == 0
        assert called.stdout.startswith(change) and called.stderr == f"Warning: {TOO_SHORT}.\n"
    listed = CliRunner().invoke(app, ["automations", "--json"])
    assert [one["change"] for one in json.loads(listed.stdout)] == ["left"] and TOO_SHORT in listed.stderr


def test_the_command_warns_of_a_detection_that_is_too_slow(server, tmp_path):
    assert CliRunner().invoke(app, ["automations"]).stderr == ""
    slow = tmp_path / "slow.yaml"
    slow.write_text(lost_runs_file().read_text().replace("within: 540", "within: 900"))
    called = CliRunner().invoke(app, ["automations", str(slow)])
    assert called.stdout.startswith("changed")
    assert "leaves 675 s of the lease (900s), but its run is marked as Crashed only after 900 s" in called.stderr


def test_the_doctor_reports_lease_and_detection_time(server, monkeypatch):
    assert lease_finding().verdict == "skipped"
    CliRunner().invoke(app, ["automations"])
    found = lease_finding()
    assert found.verdict == "ok" and found.finding == explain_lease(900, 540)[1]
    monkeypatch.setenv("AGS_LEASE", "10m")
    found = lease_finding()
    assert (found.verdict, f"{found.finding}: {found.remedy}") == ("warning", TOO_SHORT)
    (known,) = server.read_automations()
    server.pause_automation(known.id)
    assert lease_finding().verdict == "skipped"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path):
    (tmp_path / "broken.yaml").write_text("name: [")
    reasons = {
        "missing.yaml": r"missing\.yaml cannot be read: No such file or directory\. Nothing was changed\.$",
        "broken.yaml": r"broken\.yaml cannot be read as YAML: .*\. Nothing was changed\.$",
    }
    for name, reason in reasons.items():
        with pytest.raises(ConfigurationError, match=f"(?s){reason}"):
            sync_automations([tmp_path / name])
