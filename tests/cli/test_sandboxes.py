"""Commands about sandboxes: list them, look inside, stop them."""

import json
import re
from datetime import datetime, timezone

import pytest
from prefect.client.orchestration import get_client

from ags_flows import AGSConfig
from ags_flows.cli.instances import find_instance
from ags_flows.errors import ConfigurationError, NotFoundError
from ags_flows.tasks import start_command


def test_ps_lists_what_flows_have_started_with_ids_to_copy(cli, instance, ags_config):
    other = ags_config.control_plane().start_instance(tool="base", timeout="10m")
    listed = cli("ps")
    assert listed.exit_code == 0
    assert instance.id in listed.stdout and "brave-otter" in listed.stdout
    assert other.id not in listed.stdout
    assert other.id in cli("ps", "--all").stdout
    assert listed.stdout.splitlines()[0].split("\t")[0] == "instance_id"


def test_ps_fits_a_terminal_of_80_columns(cli, start):
    name = "python etl.py --yesterday on python-311"
    started = [start(**{"flow-run-name": name + "x" * 60}) for _ in range(2)]
    shown = re.sub(r"\x1b\[[0-9;]*m", "", cli("ps", columns=80).stdout)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if any(line.strip().startswith(one.id[:8]) for one in started)]
    assert len(rows) == 2
    for row in rows:
        assert "RUNNING" in row and name in row and "…" in row and re.search(r"\d:\d\d ", row)
    assert "ends in" in shown
    assert started[0].id in cli("ps", columns=200).stdout


def test_json_has_numbers_as_numbers_and_times_with_their_zone(cli, instance):
    (shown,) = json.loads(cli("ps", "--json").stdout)
    assert (shown["instance_id"], shown["status"], shown["flow_run_id"]) == (instance.id, "RUNNING", "x")
    assert 0 <= shown["age_seconds"] < 60 and 0 < shown["ends_in_seconds"] <= 600
    assert datetime.fromisoformat(shown["created_at"].replace("Z", "+00:00")).tzinfo is not None


def keys_of(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",),
        ("exec", "--json", "ID", "echo"),
        ("logs", "ID"),
        ("logs", "--list", "ID"),
        ("stop", "ID"),
        ("run", "--tool", "base", "--json", "true"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_every_json_has_keys_in_snake_case(arguments, cli, instance, ags_config):
    if "logs" in arguments:
        start_command.fn(instance, "true", config=ags_config)
    words = [instance.id if word == "ID" else word for word in arguments]
    done = cli(*words) if "--json" in words else cli(*words, "--json")
    keys = set(keys_of(json.loads(done.stdout)))
    assert keys and [key for key in keys if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", key)] == []


def test_exec_gives_output_and_exit_code(cli, instance):
    done = cli("exec", instance.id, "echo out; echo err >&2; exit 3")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize("words", [("--", "ls", "-la", "/"), ("ls", "-la", "/"), ("ls -la /",)], ids=str)
def test_exec_takes_a_program_with_its_options(words, cli, instance):
    done = cli("exec", instance.id[:6], *words)
    assert done.exit_code == 0
    assert re.search(r"^drwx.* etc$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--", ""), "command is empty"), ((" ",), "command is empty"), (("--",), "")],
    ids=str,
)
@pytest.mark.parametrize("before", [("exec", "ID"), ("run", "--tool", "base")], ids=str)
def test_an_empty_command_as_of_a_variable_that_is_not_set_is_refused(before, words, said, cli, instance):
    done = cli(*(instance.id if word == "ID" else word for word in before), *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_first_characters_of_an_id_are_enough_if_no_other_live_id_begins_so(start, ags_config):
    known = [start() for _ in range(3)]
    for one in known:
        length = 1 + max(next(n for n in range(33) if one.id[n] != other.id[n]) for other in known if other is not one)
        assert find_instance(ags_config, one.id[:length]) == one.id
        assert find_instance(ags_config, one.id) == one.id
    with pytest.raises(NotFoundError, match="no instance 'zz'"):
        find_instance(ags_config, "zz")


def test_a_prefix_of_several_ids_is_that_of_the_one_that_lives(start, ags_config):
    known = {}
    later = start().id
    while later[0] not in known:
        known[later[0]] = later
        later = start().id
    earlier = known[later[0]]
    with pytest.raises(ConfigurationError, match=f"2 ids begin with '{later[0]}'"):
        find_instance(ags_config, later[0])
    ags_config.control_plane().stop_instance(earlier)
    assert find_instance(ags_config, later[0]) == later


@pytest.mark.parametrize(
    "words",
    [
        ("stop", ""),
        ("stop", " "),
        ("stop", "ID", ""),
        ("exec", "", "hostname"),
        ("logs", ""),
        ("reap", "--flow-run", ""),
    ],
    ids=" ".join,
)
def test_an_empty_id_as_of_a_variable_that_is_not_set_is_refused(words, cli, instance, ags_config):
    done = cli(*(instance.id if word == "ID" else word for word in words), server="http://127.0.0.1:9/api")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "must be a text that is not empty" in done.stderr and len(done.stderr.splitlines()) == 1
    assert ags_config.control_plane().get_instance(instance.id).status == "RUNNING"


@pytest.mark.parametrize("words", [("--json", "--", "ls"), ("--user", "root", "--", "id")], ids=" ".join)
def test_options_after_the_instance_are_refused(words, cli, instance):
    done = cli("exec", instance.id, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{words[0]}: options stand before") and len(done.stderr.splitlines()) == 1


def test_a_negative_number_of_lines_is_refused(cli, instance):
    assert cli("logs", instance.id, "--lines", "-5").exit_code == 2


def test_stop_stops_the_others_too(cli, instance, ags_config):
    done = cli("stop", "nothing", instance.id[:10])
    assert (done.exit_code, done.stdout) == (1, f"Stopped {instance.id}\n")
    assert "There is no instance 'nothing'" in done.stderr
    assert ags_config.control_plane().get_instance(instance.id).status in ("STOPPING", "STOPPED")


def test_logs_show_the_output_that_no_process_follows(cli, instance, ags_config):
    start_command.fn(instance, "echo first; echo oops >&2; exit 3", config=ags_config)
    start_command.fn(instance, "for i in 1 2 3; do echo $i; sleep 0.2; done; echo end", config=ags_config)
    followed = cli("logs", instance.id, "--follow")
    assert followed.stdout == "1\n2\n3\nend\n"
    first, second = json.loads(cli("logs", instance.id, "--list", "--json").stdout)
    assert (first["number"], first["exit_code"], first["bytes"]) == (1, 3, 11)
    assert (second["exit_code"], second["bytes"]) == (0, 10)
    assert second["command"].startswith("for i in")
    started = datetime.fromisoformat(second["started_at"].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - started).total_seconds()) < 60
    one = cli("logs", instance.id, "--number", "1")
    assert (one.stdout, one.stderr) == ("first\n", "oops\n")
    whole = json.loads(cli("logs", instance.id, "--number", "1", "--json").stdout)
    assert (whole["instance_id"], whole["exit_code"]) == (instance.id, 3)
    assert (whole["stdout"], whole["stderr"]) == ("first\n", "oops\n")
    assert "not in 1..2" in cli("logs", instance.id, "--number", "3").stderr
    assert "No durable command" in cli("logs", instance.id, "--user", "root").stderr


@pytest.mark.timeout(120)
def test_reap_prints_what_it_would_stop(cli, instance, prefect_server):
    done = cli("reap", "--dry-run", "--grace", "0", "--json", server=None)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["dry_run"] is True
    (judged,) = [*report["stopped"], *report["spared"]]
    (listed,) = json.loads(cli("ps", "--json").stdout)
    same = ("instance_id", "status", "tool_name", "flow_run_id", "flow_run_name")
    assert {key: judged[key] for key in same} == {key: listed[key] for key in same}
    assert 0 <= judged["age_seconds"] - listed["age_seconds"] + 60 < 120
    assert "1 live sandboxes seen" in cli("reap", "--dry-run", server=None).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("ps", "--config", ""),
        ("exec", "--json", "nothing", "ls"),
        ("logs", "nothing"),
        ("stop", ""),
        ("reap",),
        ("run", "--json", "--tool", "base", " "),
        ("automations", "--region", "Mars!"),
    ],
    ids=str,
)
def test_an_error_is_an_object_with_json(words, cli):
    done = cli(*words) if "--json" in words else cli(*words, "--json")
    error = json.loads(done.stdout)["error"]
    assert error["message"] == done.stderr.strip() and error["type"].endswith("Error") and done.exit_code in (1, 2)


@pytest.mark.timeout(120)
def test_a_flow_run_without_sandboxes_is_named(cli, instance, prefect_server):
    run = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert f"none of flow run {run}" in cli("reap", "--dry-run", "--flow-run", run, server=None).stderr


def test_a_setting_is_read_before_automations_are_changed(cli, prefect_server):
    def names():
        with get_client(sync_client=True) as client:
            return client.request("POST", "/automations/filter").json()

    before = names()
    assert cli("automations", "--config", "nothing", server=None).exit_code == 2
    assert names() == before


def test_a_block_and_a_region_are_chosen_for_a_command(cli, instance, prefect_server, ags_config, monkeypatch):
    ags_config.save("chosen-by-name", overwrite=True)
    elsewhere = {"AGS_ENDPOINT": "http://127.0.0.1:9"}
    assert cli("ps", server=None, **elsewhere).exit_code == 1
    shown = cli("ps", "--config", "chosen-by-name", server=None, **elsewhere)
    assert shown.exit_code == 0 and instance.id in shown.stdout
    assert "not supported" in cli("ps", "--config", "chosen-by-name", "--region", "mars-1", server=None).stderr
    assert "no AGS Config block named 'nothing'" in cli("ps", "--config", "nothing", server=None).stderr
    AGSConfig.delete("chosen-by-name")


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("reap",), {"server": "http://127.0.0.1:9/api"}, "The Prefect server does not respond"),
        (("reap", "--dry-run"), {}, "PREFECT_API_URL is not set"),
        (("stop", "nothing"), {}, "There is no instance 'nothing'"),
        (("logs", "nothing"), {}, "There is no instance 'nothing'"),
        (("logs", "x" * 32), {}, f"instance {'x' * 32} does not exist"),
        (("ps",), {"TENCENTCLOUD_SECRET_KEY": "wrong"}, "AuthFailure.SignatureFailure"),
        (("ps",), {"TENCENTCLOUD_SECRET_KEY": ""}, "TENCENTCLOUD_SECRET_KEY not set"),
        (("ps",), {"AGS_ENDPOINT": "http://127.0.0.1:9"}, "Is the emulator running there"),
        (("ps",), {"AGS_ENDPOINT": "http://"}, "http_endpoint"),
        (("ps", "--region", "Mars!"), {}, "region"),
    ],
    ids=str,
)
def test_an_error_is_one_line_without_a_traceback(cli, arguments, environment, said):
    done = cli(*arguments, **environment)
    assert done.exit_code == (2 if said in ("http_endpoint", "region", "PREFECT_API_URL is not set") else 1)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
