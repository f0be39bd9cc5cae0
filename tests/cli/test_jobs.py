"""`ags-flows run`: a command in a new sandbox."""

import json

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

RUN = ("run", "--quiet")


def left_over(config):
    return [one for one in config.control_plane().list_instances() if one.status == "RUNNING"]


def test_run_passes_output_and_exit_code_on(cli, tmp_path, ags_config):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.csv").write_text("a\nb\n")
    command = "wc -l < in/data.csv; echo warn >&2; mkdir out; cp in/data.csv out; exit 7"
    up, down = f"{tmp_path / 'in'}:in", f"out/*.csv:{tmp_path / 'got'}"
    done = cli("run", "--quiet", "--image", "python:3.11", "--upload", up, "--download", down, "--", command)
    assert (done.exit_code, done.stdout) == (7, "2\n")
    assert done.stderr.splitlines() == ["warn", f"-- Exit code 7: {command}"]
    assert (tmp_path / "got" / "data.csv").read_text() == "a\nb\n"
    assert not left_over(ags_config)
    assert "run-" not in str(ags_config.control_plane().list_tools())


def test_run_gives_a_program_its_arguments_and_reports_in_json(cli):
    done = cli("run", "--image", "python:3.11", "--env", "WORD=hello", "--json", "--", "printenv", "WORD")
    report = json.loads(done.stdout)
    assert (report["result"]["stdout"], report["result"]["exit_code"]) == ("hello\n", 0)
    assert "-- Created tool run-" in done.stderr


@pytest.mark.parametrize("of", [(), ("--tool", "base"), ("--image", "python:3.11")], ids=str)
def test_run_takes_resources_directory_user_and_lease(of, cli, ags_config):
    options = (*of, "--cpu", "2", "--memory", "4Gi", "--cwd", "/tmp", "--user", "root", "--lease", "30m", "--json")
    done = cli("run", *options, "pwd; id -un")
    report = json.loads(done.stdout)
    assert report["result"]["stdout"] == "/tmp\nroot\n"
    used = ags_config.control_plane().get_instance(report["instance_id"])
    assert (used.cpu_cores, used.memory_gib, used.metadata["lease"]) == (2, 4, "1800")


@pytest.mark.timeout(120)
def test_run_with_a_prefect_server_is_recorded_there(cli, prefect_server):
    done = cli("run", "--image", "python:3.11", "--", "echo recorded", server=None)
    assert (done.exit_code, done.stdout) == (0, "recorded\n"), done.stderr
    assert "View at" in done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", [None, ""], ids=["server", "none"])
def test_a_command_that_failed_is_a_failed_run_whose_sandbox_may_be_kept(cli, server, prefect_server, ags_config):
    command = f"echo kept by {server}; exit 4"
    done = cli("run", "--tool", "base", "--on-failure", "keep", "--lease", "20m", "--json", command, server=server)
    report = json.loads(done.stdout)
    assert (done.exit_code, report["result"]["exit_code"]) == (4, 4), done.stderr
    assert [one.id for one in left_over(ags_config)] == [report["instance_id"]]
    assert "is kept until" in done.stderr and "Traceback" not in done.stderr
    if server is None:
        with get_client(sync_client=True) as client:
            (run,) = [one for one in client.read_flow_runs() if one.parameters.get("command") == command]
        assert run.state.type is StateType.FAILED and "exit code 4" in run.state.message


OF_AGS = ("Sandbox tool 'nix' does not exist", "failed to pull image no.invalid/x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tool", "a", "--image", "b", "true"), "tool and image: give one of them"),
        (("--tool", "base", "--cpu", "2", "true"), "cpu and memory belong together"),
        (("--image", "python:3.11", "--memory", "2Gi", "true"), "cpu and memory belong together"),
        (("--tool", "base", "--cpu", "", "true"), "cpu must be a text that is not empty"),
        (("--tool", "base", "--", ""), "command is empty"),
        (("--upload", "x", "true"), "upload: 'x' is not of the form LOCAL:REMOTE"),
        (("--timeout", "-1", "true"), "timeout must be >= 0 (0 means no limit), got -1."),
        (("--lease", "5 minutes", "true"), "lease='5 minutes' is not a duration"),
        (("--cpu", "many", "true"), "cpu"),
        (("--image", "", "true"), "image must be a text that is not empty"),
        (("--cwd", "", "true"), "cwd must be a path in the sandbox"),
        (("--config", "", "true"), "config must be a text that is not empty"),
        (("--env", "A", "true"), "env: 'A' is not of the form NAME=VALUE"),
        (("--upload", ":x", "true"), "upload: ':x' is not of the form LOCAL:REMOTE"),
        (("--tool", "nix", "true"), "Sandbox tool 'nix' does not exist"),
        (("--image", "no.invalid/x", "true"), "failed to pull image no.invalid/x"),
        (("--secret", "A=nix", "--tool", "base", "true"), "secret: Secret blocks are on a Prefect server"),
    ],
    ids=" ".join,
)
def test_a_job_that_cannot_be_run_is_refused_in_one_line(cli, arguments, said):
    done = cli("run", *arguments)
    # What AGS refuses is a failure, what is refused here is a wrong command line.
    assert done.exit_code == (1 if said in OF_AGS else 2)
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_unknown_choice_is_refused_with_the_choices(cli):
    done = cli("run", "--on-failure", "x", "true")
    assert done.exit_code == 2
    assert "stop" in done.stderr and "keep" in done.stderr and "pause" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--user", "bob", "--tool", "base", "true"), "user: Input should be 'user' or 'root'."),
        (("run", "--json", "--tool", "base", "--timeout", "nan", "true"), "timeout"),
        (("swebench", "--predictions", "p", "--dataset", "d", "--retries", "-1"), "retries"),
        (("swebench", "--predictions", "p", "--dataset", "d", "--timeout", "-1"), "timeout"),
        (("reap", "--grace", "-1"), "grace_minutes"),
        (("reap", "--flow-run", "otter"), "'otter' is not the id of a flow run"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("server", [None, ""], ids=["server", "none"])
def test_an_option_that_only_the_flow_can_refuse_is_refused_in_one_line(
    cli, arguments, said, server, prefect_server, ags_config
):
    if arguments[0] == "reap" and server is not None:
        said = "PREFECT_API_URL is not set"
    done = cli(*arguments, server=server)
    assert (done.exit_code, done.stdout[:9]) == (2, '{"error":' if "--json" in arguments else ""), done.stderr
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not left_over(ags_config)
