"""`ags-flows verify` against emulators: all as expected, and a seeded fault in each group is found."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from typer.testing import CliRunner

from ags_flows import AGSConfig
from ags_flows.cli import app
from ags_flows.emulator import Emulator
from ags_flows.ownership import ENDED
from ags_flows.testing import config_for
from ags_flows.verify import groups
from ags_flows.verify.account import PREFIX, Account
from ags_flows.verify.command import Options, announcement, verify
from ags_flows.verify.profile import Profile
from ags_flows.verify.runner import checks_of, run_checks

ACCOUNT = {name: os.environ.get(name) for name in ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY")}
NAMES = [group.name for group in groups.GROUPS]


def run(config, only=(), **options):
    """Run checks and close the account; return the results and the account."""
    account = Account(config)
    try:
        return list(run_checks(account, checks_of(only, quick=True), **options)), account
    finally:
        assert account.close() == []


def unexpected(results):
    return [(one.group, one.check, one.status, one.seen) for one in results if one.status != "as expected"]


def left(config):
    control = config.control_plane()
    tools = [tool.name for tool in control.list_tools() if tool.name.startswith(PREFIX)]
    return tools, [one.id for one in control.list_instances() if one.status not in ENDED]


def test_there_are_about_sixty_checks_with_different_sentences():
    checks = checks_of()
    assert len(checks) >= 60 and len({check.sentence for check in checks}) == len(checks)
    assert all(check.sentence[0].isupper() and not check.sentence.endswith(".") for check in checks)
    assert len(NAMES) == 15


@pytest.mark.timeout(300)
def test_all_is_as_expected_in_the_emulator_and_nothing_is_left(ags_config):
    results, account = run(ags_config)
    assert unexpected(results) == []
    assert left(ags_config) == ([], [])
    assert (len(account._tools), len(account._instances) + 1) == groups.creates()
    assert not [name for name, value in account.answers.items() if value is None]
    # All that is recorded is played back, or stands in the documentation as recorded only.
    assert set(account.answers) == set(OTHER) | NOT_PLAYED
    Emulator(profile={"format": 1, "answers": account.answers, "codes": account.codes})


@pytest.mark.timeout(300)
def test_all_is_as_expected_with_tls_and_an_immediate_start(trusting):
    with Emulator(tls=True, start="at-once") as emulator, trusting(emulator):
        results, account = run(config_for(emulator))
    assert unexpected(results) == []
    assert account.answers["start.status"] == "RUNNING"


def test_an_instance_that_ends_at_its_timeout_is_waited_for(ags_config, ags_emulator):
    class Hurried(Account):
        def until(self, instance, goal, *step):
            if goal == "STOPPED":
                ags_emulator.advance(31)
            return super().until(instance, goal, *step)

    account = Hurried(ags_config)
    try:
        [result] = run_checks(account, [check for check in checks_of(["leases"]) if check.slow])
    finally:
        account.close()
    assert (result.status, result.seen.startswith("after")) == ("as expected", True), result


SEEDED = {
    "credentials": ("fault", "error", "DescribeSandboxToolList", {"code": "InternalError"}),
    "tools": ("transition", "tool.create", "fail", {}),
    "instances": ("profile", {"metadata.update": "replace"}),
    "tokens": ("profile", {"unauthorized.envd": 403}),
    "gateway": ("profile", {"closed.port": 503}),
    "files": ("stream", {"path": "/files", "status": 400}),
    "commands": ("stream", {"path": "/process.Process/Start", "status": 400}),
    "durable commands": ("stream", {"path": "/process.Process/Start", "status": 400}),
    "take-over": ("fault", "error", "UpdateSandboxInstance", {"code": "InvalidParameter"}),
    "leases": ("fault", "error", "UpdateSandboxInstance", {"code": "InvalidParameter"}),
    "pause and resume": ("transition", "instance.pause", "fail", {}),
    "snapshots": ("fault", "error", "CreateSandboxSnapshot", {"code": "InvalidParameter"}),
    "code": ("stream", {"port": 49999, "status": 400}),
    "quotas": ("fault", "error", "DescribeQuotaOverview", {"code": "InvalidParameter"}),
    "errors": ("profile", {"codes": {"MissingParameter": "InvalidParameter"}}),
}


@pytest.mark.parametrize("group", NAMES)
def test_a_seeded_fault_of_each_group_is_found(group, ags_emulator):
    kind, *how = SEEDED[group]
    ags_config = config_for(ags_emulator, startup_timeout=4)
    if kind == "profile":
        codes = how[0].pop("codes", {})
        with Emulator(profile={"answers": how[0], "codes": codes}) as emulator:
            results, _ = run(config_for(emulator), [group])
    else:
        if kind == "fault":
            ags_emulator.fault(*how[:2], times=None, **how[2])
        elif kind == "stream":
            ags_emulator.stream_fault("status", times=None, **how[0])
        else:
            ags_emulator.transition(*how[:2], **how[2])
        results, _ = run(ags_config, [group])
    found = unexpected(results)
    assert found and {one.group for one in results} == {group}
    # What is not broken is still checked.
    assert len(results) == len(checks_of([group], quick=True))


def test_what_an_account_does_not_have_is_not_available(ags_emulator, ags_config):
    ags_emulator.fault("error", "DescribeQuotaOverview", times=None, code="InvalidAction")
    results, _ = run(ags_config, ["quotas"])
    assert {one.status for one in results} == {"not available here"}


@pytest.mark.parametrize(
    "sent", ["SIGINT", *(pytest.param(one, marks=pytest.mark.long) for one in ("SIGTERM", "SIGHUP")), "SIGKILL"]
)
def test_a_run_that_a_signal_ends_leaves_nothing_for_longer_than_the_next_run(sent, cli, ags_config):
    command = [sys.executable, "-m", "ags_flows.cli", "verify", "--yes", "--only", "tools", "--only", "commands"]
    # A parent that ignores a signal, such as nohup, would pass that on.
    command = ["env", "--default-signal=HUP,TERM", *command]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not left(ags_config)[1]:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.Signals[sent])
        _, errors = process.communicate(timeout=60)
        assert process.returncode == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}[sent]
    ended = "Interrupted. What this run created was deleted.\n"
    assert errors.count(ended) == (0 if sent == "SIGKILL" else 1), errors
    if sent == "SIGKILL":
        assert [len(kind) for kind in left(ags_config)] == [2, 1]
        assert "Deleted 2 tools" in cli.invoke(app, ["verify", "--yes", "--only", "errors"]).output
    assert left(ags_config) == ([], [])


def test_the_next_run_deletes_what_a_killed_one_left_behind(ags_config, monkeypatch):
    with monkeypatch.context() as patch:
        # No process has this number.
        patch.setattr("ags_flows.verify.account.os.getpid", lambda: 2**31 - 1)
        killed = Account(ags_config)
        assert unexpected(run_checks(killed, checks_of(["tools", "snapshots"], quick=True))) == []
    tools, instances = left(ags_config)
    assert len(tools) > 1 and instances
    living = Account(ags_config)
    assert living.tool.name
    assert Account(ags_config).sweep() == len(tools)
    assert left(ags_config) == ([living.tool.name], [])
    living.close()


OTHER = {
    "start.status": "RUNNING",
    "start.repeat": "refuse",
    "metadata.update": "replace",
    "token.lifetime": 1800,
    "stopped.listed": False,
    "unauthorized.envd": 403,
    "unauthorized.port": 403,
    "closed.port": 503,
    "gone.envd": 410,
    "gone.code": 404,
    "gone.port": 502,
    "paused.envd": 423,
    "list.misses": 0.25,
    "tool.repeat": "refuse",
    "tool.tags": "merge",
    "timeout.shortens": False,
    "files.ranges": False,
    "pause.status": "PAUSED",
    **dict.fromkeys(
        (
            *("call.seconds", "tool.create.seconds", "tool.delete.seconds", "start.call.seconds", "start.seconds"),
            *("list.seconds", "stop.seconds", "pause.seconds", "resume.seconds", "snapshot.seconds"),
            "command.seconds",
        ),
        0.1,
    ),
}
"""Unlike the emulator in everything that a profile can contain."""

NOT_PLAYED = {"metadata.seconds", "start.repeat.lasts"}
CODES = {"InvalidParameter.Filters": "InvalidParameterValue", "ResourceNotFound.SandboxTool": "ResourceNotFound"}


@pytest.mark.long
def test_an_emulator_with_a_profile_is_seen_as_the_account_was(tmp_path):
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"format": 1, "answers": OTHER, "codes": CODES}))
    with Emulator(profile=file) as emulator:
        emulator.reset()
        config = config_for(emulator)
        results, account = run(config)
    seen = Profile.of(account, results)
    assert {name: seen.answers[name] for name in OTHER if not name.endswith("seconds")} == {
        name: value if name != "token.lifetime" else pytest.approx(value, abs=5)
        for name, value in OTHER.items()
        if not name.endswith("seconds")
    }
    # These begin when the start has returned: a look that takes as long sees the end of them.
    timed = {name for name in OTHER if name.endswith("seconds")} - {"start.seconds", "list.seconds"}
    assert {name for name in timed if seen.answers[name] < OTHER[name]} == set()
    assert CODES.items() <= seen.codes.items()


def test_the_first_start_does_not_include_the_creation_of_the_tool(ags_emulator, ags_config):
    ags_emulator.transition("tool.create", "seconds", 2)
    account = Account(ags_config)
    try:
        assert account.started("main").id
        assert account.answers["tool.create.seconds"] >= 2 > account.answers["start.call.seconds"]
    finally:
        account.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "status", [{"start.status": "RUNNING", "pause.status": "PAUSED"}, {"start.status": "STARTING"}]
)
def test_durations_that_are_played_back_are_recorded_again_as_they_are(status):
    seconds = dict.fromkeys(
        ("start.call.seconds", "stop.seconds", "pause.seconds", "resume.seconds", "list.seconds"), 0.8
    )
    answers = {"call.seconds": 0.05, **seconds, **status, "stopped.listed": False}
    if status["start.status"] == "STARTING":
        answers["start.seconds"] = 0.8
    with Emulator(profile={"answers": answers}) as emulator:
        _, account = run(config_for(emulator), ["instances", "pause and resume"])
    played = Profile("", "", {name: value for name, value in answers.items() if name != "call.seconds"})
    assert Profile("", "", account.answers).differences(played) == []
    assert all(account.answers[name] > 0.65 for name in seconds)


def test_a_failed_pause_ends_the_wait(ags_emulator, ags_config, monkeypatch):
    monkeypatch.setattr("ags_flows.verify.account.PAUSES_WITHIN", 0.3)
    ags_emulator.transition("instance.pause", "fail", reason="no")
    results, _ = run(ags_config, ["pause and resume"])
    assert {one.status for one in results} == {"failed"}
    assert all("RUNNING again" in one.seen for one in results), results
    assert sum(one.seconds for one in results) < 60


def test_a_list_that_is_late_does_not_flicker():
    with Emulator(profile={"answers": {"list.seconds": 1.5, "list.misses": 0.0}}) as emulator:
        results, account = run(config_for(emulator), ["instances"])
    assert account.answers["list.misses"] == 0 and account.answers["list.seconds"] > 1.2
    assert {one.status for one in results} == {"as expected"}


def test_a_tool_of_an_earlier_run_that_stays_is_reported(ags_emulator, ags_config, monkeypatch, capsys):
    ags_emulator.fault("error", "DeleteSandboxTool", times=100, code="UnauthorizedOperation")
    assert verify(ags_config, Options(only=["files"])) == 0
    monkeypatch.setattr("ags_flows.verify.account._is_left_over", lambda tool: True)
    assert verify(ags_config, Options(only=["files"])) == 0
    assert capsys.readouterr().err.count("Not deleted: tool") == 3


def test_a_list_that_flickers_does_not_count_as_the_end_of_an_instance():
    answers = {"stopped.listed": False, "list.misses": 0.2, "stop.seconds": 1.0}
    with Emulator(profile={"answers": answers}) as emulator:
        results, account = run(config_for(emulator), ["instances"])
    assert account.answers["stopped.listed"] is False
    # A list that leaves it out just before its end is taken for the first one after that.
    assert account.answers["stop.seconds"] > 0.7
    assert [one.seen for one in results if "stays listed for a while" in one.check] == ["it is not listed any more"]


@pytest.mark.parametrize("group", [name for name in NAMES if name != "durable commands"])
def test_a_run_creates_what_it_announces(group, ags_config):
    _, account = run(ags_config, [group])
    [slow] = [sum(check.slow for check in each.checks) for each in groups.GROUPS if each.name == group]
    tools, instances = groups.creates([group])
    assert (len(account._tools), len(account._instances)) == (tools, instances - slow)
    text = " ".join(announcement(ags_config, [group]).split())
    assert (f"up to {tools} tool" in text) == bool(tools) and (f"{instances} instance" in text) == bool(instances)


@pytest.mark.parametrize("width", ["60", None])
def test_codes_are_not_broken_at_any_width(width, ags_config, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", width or "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if width else "0")
    assert verify(ags_config, Options(only=["errors"])) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {word for line in lines for word in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).split()}
    assert {"ResourceNotFound.SandboxInstance", "InvalidParameterValue.OffsetTooLarge"} <= words
    assert bool(width) or any("its code: ResourceNotFound.SandboxInstance (" in line for line in lines)


@pytest.fixture
def cli(ags_emulator, monkeypatch):
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner()


def test_the_command_asks_and_creates_nothing_without_consent(cli, ags_config):
    for answer in ("n\n", ""):
        asked = cli.invoke(app, ["verify", "--only", "tools"], input=answer)
        output = " ".join(asked.output.split())
        assert asked.exit_code == 2 and "It creates" in output and "--yes" in output
    assert left(ags_config) == ([], [])


def test_the_command_writes_json_for_machines(cli):
    done = cli.invoke(app, ["verify", "--yes", "--only", "errors", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["counts"]) == (0, {"as expected": 8})
    assert Counter(one["group"] for one in document["checks"]) == {"errors": 8}


def test_the_command_shows_each_check_and_ends_with_1_when_one_is_different(cli, ags_emulator):
    ags_emulator.fault("error", "DescribeQuotaOverview", times=None, code="InternalError")
    done = cli.invoke(app, ["verify", "--yes", "--only", "quotas"])
    assert done.exit_code == 1 and "2 failed" in done.output and "quotas of the account" in done.output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--only", "nothing"], "credentials"),
        (["--record", "missing/profile.json"], "missing/profile.json cannot be written"),
        (["--record", "."], "cannot be written"),
        (["--against", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_a_wrong_option_is_refused_before_it_asks(cli, ags_emulator, options, reason):
    before = ags_emulator.overview()["requests"]
    done = cli.invoke(app, ["verify", *options])
    output = " ".join(done.output.split())
    assert done.exit_code == 2 and reason in output and "It creates" not in output
    assert ags_emulator.overview()["requests"] == before


def test_missing_keys_are_refused_before_it_asks(cli, monkeypatch):
    monkeypatch.delenv("TENCENTCLOUD_SECRET_ID")
    done = cli.invoke(app, ["verify"])
    assert done.exit_code == 2 and "TENCENTCLOUD_SECRET_ID" in done.output and "It creates" not in done.output
    error = json.loads(cli.invoke(app, ["verify", "--json"]).stdout)["error"]
    assert error["type"] == "CredentialsError" and "TENCENTCLOUD_SECRET_ID" in error["message"]


def test_wrong_keys_fail_the_checks_of_the_keys(cli, monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "wrong")
    done = cli.invoke(app, ["verify", "--yes", "--only", "credentials", "--json"])
    statuses = {one["check"]: one["status"] for one in json.loads(done.stdout)["checks"]}
    assert (done.exit_code, statuses["The keys are accepted"]) == (2, "failed")


def test_nothing_at_the_endpoint_ends_with_2(cli, monkeypatch):
    monkeypatch.setenv("AGS_ENDPOINT", "http://127.0.0.1:1")
    done = cli.invoke(app, ["verify", "--yes", "--only", "errors", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["error"]["type"]) == (2, "UnreachableError")


def test_a_block_without_a_server_and_a_database_is_refused_immediately(cli, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "ags_flows.cli", "verify", "--config", "production"],
        env={**environment, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "PREFECT_API_URL is not set" in done.stderr, done.stderr


@pytest.mark.live
@pytest.mark.timeout(1800)
def test_a_real_account_is_as_expected(request, monkeypatch):
    if "live" not in (request.config.option.markexpr or "") or not all(ACCOUNT.values()):
        pytest.skip("a real account: set the keys and give -m live")
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    assert verify(AGSConfig(), Options()) == 0, f"after {time.monotonic() - began:.0f} s"
