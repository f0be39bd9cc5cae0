import csv
from collections import defaultdict
from decimal import Decimal

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.states import StateType

from ags_flows.demo.data import write_data
from ags_flows.errors import (
    AGSFlowsError,
    CommandFailedError,
    ConfigurationError,
    CredentialsError,
    ToolFailedError,
    UnreachableError,
)
from ags_flows.flows import provision_and_run
from ags_flows.models import RunReport, ToolSpec
from ags_flows.testing import config_for

pytestmark = pytest.mark.usefixtures("prefect_server")

TOOL = ToolSpec(name="job", image="python:3.11")


def nothing_is_left(config):
    control = config.control_plane()
    live = [one for one in control.list_instances() if one.status not in ("STOPPED", "FAILED", "STARTING_FAILED")]
    tools = [tool.name for tool in control.list_tools() if tool.name not in ("base", "code-interpreter-v1")]
    return not live and not tools


def test_a_job_goes_into_a_sandbox_and_its_report_comes_back_right(ags_config, tmp_path):
    data = write_data(tmp_path / "data", rows=5_000)
    report = provision_and_run(
        "python3 job.py orders.csv report.md",
        TOOL,
        cwd="/home/user/data",
        uploads={str(data): "/home/user/data"},
        downloads={"/home/user/data/report.md": str(tmp_path / "report.md")},
        config=ags_config,
    )
    assert report.result.exit_code == 0
    assert "report written to report.md" in report.result.stdout
    assert [step.status for step in report.steps] == ["completed"] * len(report.steps)
    assert any(step.name.startswith("upload") for step in report.steps)
    assert report.steps[-1].name == "cleanup"
    assert RunReport.model_validate_json(report.model_dump_json()) == report
    text = (tmp_path / "report.md").read_text()
    revenue = defaultdict(Decimal)
    with (data / "orders.csv").open() as orders:
        for row in csv.DictReader(orders):
            revenue[row["region"]] += Decimal(row["quantity"]) * Decimal(row["unit_price_cents"]) / 100
    for region, amount in revenue.items():
        assert f"| {region} | {amount:,.2f} | {amount / sum(revenue.values()):.1%} |" in text
    assert f"5,000 orders, revenue {sum(revenue.values()):,.2f}." in text
    assert nothing_is_left(ags_config)


def test_a_command_that_fails_fails_the_run_with_its_code_and_its_words(ags_config):
    with pytest.raises(CommandFailedError) as caught:
        provision_and_run("echo 'no such table: orders' >&2; exit 3", TOOL, config=ags_config)
    assert "exit code 3" in str(caught.value)
    assert "no such table: orders" in str(caught.value)
    assert caught.value.result.exit_code == 3
    assert nothing_is_left(ags_config)


def test_a_run_has_a_page_with_its_command_steps_and_the_end_of_its_output(ags_config):
    with pytest.raises(CommandFailedError):
        provision_and_run("echo 'no ``` table | here' >&2; exit 3", TOOL, config=ags_config)
    with get_client(sync_client=True) as client:
        key = ArtifactCollectionFilterKey(any_=["sandbox-run"])
        page = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=key))[0].data
    assert "# Exit code 3" in page
    assert "echo 'no ``` table | here' >&2; exit 3" in page
    assert "| start instance |" in page and "| cleanup |" in page
    assert "**stderr**" in page


def test_without_check_the_exit_code_is_a_value(ags_config):
    report = provision_and_run("echo out; exit 3", TOOL, check=False, config=ags_config)
    assert (report.result.exit_code, report.result.stdout) == (3, "out\n")
    assert nothing_is_left(ags_config)


@pytest.mark.parametrize(("how", "status"), [("keep", "RUNNING"), ("pause", "PAUSED")])
def test_a_command_that_failed_counts_as_a_failure_for_its_sandbox_also_without_check(ags_config, how, status):
    report = provision_and_run("exit 4", "base", check=False, on_failure=how, config=ags_config)
    assert report.result.exit_code == 4
    assert ags_config.control_plane().get_instance(report.instance_id).status == status


def test_the_error_of_a_command_that_failed_has_the_report(ags_config):
    with pytest.raises(CommandFailedError) as caught:
        provision_and_run(["echo one", "exit 3", "true"], "base", config=ags_config)
    report = caught.value.report
    assert [one.exit_code for one in report.results] == [0, 3]
    assert report.steps[-1].name == "cleanup"


def test_what_a_failed_command_wrote_is_downloaded_all_the_same(ags_config, tmp_path):
    with pytest.raises(CommandFailedError):
        provision_and_run(
            "echo half > out.txt; exit 1",
            TOOL,
            downloads={"out.txt": str(tmp_path / "out.txt"), "never.txt": str(tmp_path / "never.txt")},
            config=ags_config,
        )
    assert (tmp_path / "out.txt").read_text() == "half\n"


def test_a_tool_that_cannot_become_active_fails_the_run_with_the_reason(ags_config):
    broken = ToolSpec(name="broken", image="registry.invalid/team/job:1")
    with pytest.raises(ToolFailedError, match=r"registry\.invalid"):
        provision_and_run("true", broken, config=ags_config)
    assert nothing_is_left(ags_config)


def test_an_empty_image_is_refused_before_anything_is_sent():
    with pytest.raises(ConfigurationError, match="the image name is empty"):
        ToolSpec(name="job", image="")


def test_wrong_keys_have_a_clear_error_without_the_key(ags_emulator):
    config = config_for(ags_emulator, secret_id=ags_emulator.secret_id, secret_key="hunter2-hunter2")
    with pytest.raises(CredentialsError) as caught:
        provision_and_run("true", TOOL, config=config)
    assert "AuthFailure" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_where_nothing_listens_has_a_clear_error(ags_emulator):
    config = config_for(ags_emulator, http_endpoint="http://127.0.0.1:9", secret_id="a", secret_key="b")
    with pytest.raises(UnreachableError, match="127.0.0.1:9"):
        config.control_plane().list_tools()


def test_a_missing_upload_is_refused_before_anything_is_started(ags_config):
    with pytest.raises(ConfigurationError, match=r"/no/such/file"):
        provision_and_run("true", TOOL, uploads={"/no/such/file": "x"}, config=ags_config)
    assert nothing_is_left(ags_config)


def test_an_existing_tool_is_used_and_kept(ags_config):
    report = provision_and_run("true", "base", config=ags_config)
    assert report.tool_name == "base"
    assert "base" in [tool.name for tool in ags_config.control_plane().list_tools()]


def test_no_key_is_stored_on_the_prefect_server(ags_config):
    @flow
    def outer():
        state = provision_and_run("true", TOOL, config=ags_config, return_state=True)
        assert state.type == StateType.COMPLETED
        return str(state.state_details.flow_run_id)

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(outer())
    secret = ags_config.credentials.secret_key.get_secret_value()
    assert run.parameters["command"] == "true"
    assert secret not in run.model_dump_json()


def test_an_exception_between_the_steps_stops_the_sandbox(ags_config):
    from ags_flows import sandbox_session

    @flow
    def breaks():
        with sandbox_session(TOOL, config=ags_config) as sandbox:
            sandbox.run("true")
            raise AGSFlowsError("on purpose")

    with pytest.raises(AGSFlowsError, match="on purpose"):
        breaks()
    assert nothing_is_left(ags_config)


def test_several_commands_run_in_turn_until_one_fails(ags_config):
    commands = ["echo one >> log", "cat log; exit 4", "echo never >> log"]
    report = provision_and_run(commands, TOOL, check=False, config=ags_config)
    assert [(result.command, result.exit_code) for result in report.results] == [(commands[0], 0), (commands[1], 4)]
    assert report.result == report.results[-1] and report.result.stdout == "one\n"


def test_a_command_that_fails_is_run_again_in_the_same_sandbox(ags_config):
    command = "echo x >> tries; test $(wc -l < tries) -ge 3"
    report = provision_and_run(command, TOOL, retries=5, retry_delay=0, config=ags_config)
    assert report.result.ok
    assert sum(step.name.startswith("exec") for step in report.steps) == 3
    assert sum(step.name == "start instance" for step in report.steps) == 1
    with pytest.raises(CommandFailedError, match="exit code 7"):
        provision_and_run("exit 7", TOOL, retries=1, retry_delay=0, config=ags_config)


def test_a_snapshot_before_and_after_holds_the_disk_of_that_moment(ags_config, tmp_path):
    (tmp_path / "in").write_text("given")
    first = provision_and_run(
        "echo made > out", TOOL, uploads={str(tmp_path / "in"): "in"}, snapshot="both", config=ags_config
    )
    assert set(first.snapshots) == {"before", "after"}
    before = provision_and_run("cat in; ls", from_snapshot=first.snapshots["before"], config=ags_config)
    assert before.result.stdout.startswith("given") and "out" not in before.result.stdout
    after = provision_and_run("cat out", from_snapshot=first.snapshots["after"], config=ags_config)
    assert after.result.stdout == "made\n"
    with pytest.raises(ConfigurationError, match="give one of them"):
        provision_and_run("true", TOOL, from_snapshot=first.snapshots["after"], config=ags_config)


def test_what_cannot_end_well_is_refused_before_anything_is_started(ags_config):
    for wrong in (
        {"command": []},
        {"command": ["true", " "]},
        {"command": "true", "secrets": {"TOKEN": "no-such-block"}},
    ):
        with pytest.raises(ConfigurationError):
            provision_and_run(tool=TOOL, config=ags_config, **wrong)
    assert nothing_is_left(ags_config)
