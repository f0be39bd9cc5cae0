"""Commands through the tasks: in the foreground, in the background, with input."""

import os
import time

import pytest
from prefect import flow
from prefect.blocks.system import Secret

from ags_flows import sandbox_session
from ags_flows.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
)
from ags_flows.models import CommandHandle, ToolSpec
from ags_flows.tasks import (
    exec_command,
    kill_command,
    list_files,
    start_command,
    start_instance,
    wait_command,
    wait_instance_running,
)


@pytest.fixture
def instance(ags_config):
    return wait_instance_running.fn(start_instance.fn("base", config=ags_config), config=ags_config)


@pytest.fixture
def run(instance, ags_config):
    return lambda command, **options: exec_command.fn(instance, command, config=ags_config, **options)


@pytest.mark.parametrize("durable", [True, False])
def test_a_program_gets_its_arguments_as_they_are(run, durable):
    odd = ["printf", "%s|", "it's", "$HOME", "a b", "`x`", "*"]
    assert run(odd, durable=durable).stdout == "it's|$HOME|a b|`x`|*|"


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("data", ["line\nno end", b"\x00\xff%s\\\n'\"", "", "x" * 15_000])
def test_a_command_reads_what_it_is_given(run, durable, data):
    expected = data.encode() if isinstance(data, str) else data
    result = run("od -An -v -tx1 | tr -d ' \\n'; echo; echo more", stdin=data, durable=durable)
    assert result.stdout == f"{expected.hex()}\nmore\n"
    assert result.command.startswith("od")


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.skipif(os.geteuid() != 0, reason="without root privileges the emulator has only one user")
def test_a_directory_that_the_user_must_not_enter_is_named(run, durable, caplog):
    with pytest.raises(InvalidRequestError, match="^cwd: the user must not enter '/root'.*not started"):
        run("echo started", cwd="/root", durable=durable)
    assert run("pwd", cwd="/root", user="root", durable=durable).stdout == "/root\n"
    assert "@ags" not in caplog.text


def test_a_direct_command_may_print_what_looks_like_a_mark_of_this_package(run):
    result = run("echo @ags-no-directory >&2; echo @ags- >&2; exit 124", durable=False)
    assert (result.exit_code, result.stderr) == (124, "@ags-no-directory\n@ags-\n")


@pytest.mark.parametrize("log_output", [True, False])
def test_endless_output_does_not_delay_the_time_limit(run, log_output):
    begun = time.monotonic()
    with pytest.raises(CommandTimeoutError) as caught:
        run("echo begin; yes", timeout=2, limit=1_000, log_output=log_output)
    assert time.monotonic() - begun < 20
    result = caught.value.result
    assert result.truncated and result.stdout_size > 1_000_000
    assert result.stdout.startswith("begin\ny\n") and result.stdout.endswith("\ny\n")
    assert len(result.stdout) < 1_100


@pytest.mark.parametrize("command", [5, {"a": 1}, 3.5, b"ls", ["a", 5]])
def test_a_command_of_another_type_is_named(run, command):
    with pytest.raises(ConfigurationError, match="^command must be a text, or a list of texts, got "):
        run(command)


@pytest.mark.parametrize("durable", [True, False])
def test_a_variable_is_given_once(run, durable):
    with pytest.raises(ConfigurationError, match="^env: TOKEN is in secrets too"):
        run("echo started", env={"TOKEN": "x"}, secrets={"TOKEN": "nowhere"}, durable=durable)


@pytest.mark.parametrize("key", ["../../x", "a/b", "..", "", "a\nb"])
def test_the_key_of_a_handle_is_the_name_of_a_directory(key):
    with pytest.raises(ValueError, match="key"):
        CommandHandle(instance_id="sdi-1", key=key, command="x")


def test_an_id_that_is_not_one_is_named(ags_config):
    with pytest.raises(ConfigurationError, match="^instance must be the id of an instance, got '../x'"):
        exec_command.fn("../x", "true", config=ags_config)


def test_nothing_of_the_input_stays(run, instance, ags_config):
    run("cat", stdin="private")
    assert not [entry.name for entry in list_files.fn(instance, "/tmp", config=ags_config) if "ags_flows" in entry.name]


def test_input_that_is_too_long_for_the_direct_path_is_refused(run):
    with pytest.raises(ConfigurationError, match="^stdin: 100,000 bytes, more than the 25,000 .*durable=True"):
        run("wc -c", stdin="x" * 100_000, durable=False)
    assert run("wc -c", stdin="x" * 5_000_000).stdout == "5000000\n"


@pytest.mark.parametrize("durable", [True, False])
def test_the_size_of_the_whole_environment_is_checked(run, durable):
    env = {f"V{number}": "x" * 99_000 for number in range(10)}
    assert run("echo ${#V0} ${#V9}; ls / >/dev/null", env=env, durable=durable).stdout == "99000 99000\n"
    with pytest.raises(ConfigurationError, match="^env: .* have 1,089,.*more than 1,000,000"):
        run("true", env={**env, "ONE_MORE": "x" * 99_000}, durable=durable)


@pytest.mark.parametrize("command", ["", "  ", [], "a\0b"])
def test_an_invalid_command_is_refused_before_any_request(ags_emulator, ags_config, command):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match="^command"):
        exec_command.fn("sbi-1", command, config=ags_config)
    assert ags_emulator.overview()["requests"] == before


def test_any_holder_of_its_handle_can_wait_for_a_command_in_the_background(instance, ags_config):
    handle = start_command.fn(instance, "for i in 1 2 3; do echo $i; sleep 0.3; done; exit 4", config=ags_config)
    restored = CommandHandle.model_validate_json(handle.model_dump_json())
    result = wait_command.fn(restored, config=ags_config)
    assert (result.exit_code, result.stdout) == (4, "1\n2\n3\n")
    with pytest.raises(CommandFailedError, match="exit code 4"):
        wait_command.fn(restored, check=True, config=ags_config)


def test_exec_command_gives_a_handle_too(run, ags_config):
    handle = run("echo done", background=True)
    assert isinstance(handle, CommandHandle)
    assert wait_command.fn(handle, config=ags_config).stdout == "done\n"
    with pytest.raises(ConfigurationError, match="background"):
        run("echo done", background=True, durable=False)


def test_a_command_in_the_background_can_be_killed(run, instance, ags_config):
    handle = start_command.fn(instance, "sleep 4321 & sleep 4321", config=ags_config)
    kill_command.fn(handle, config=ags_config)
    kill_command.fn(handle, config=ags_config)
    assert wait_command.fn(handle, config=ags_config).exit_code > 128
    assert run("pgrep -xf 'sleep 4321'", durable=False).exit_code == 1


def test_its_time_limit_holds_in_the_background(instance, ags_config):
    handle = start_command.fn(instance, "sleep 60", timeout=1, config=ags_config)
    with pytest.raises(CommandTimeoutError, match="limit of 1 s"):
        wait_command.fn(handle, config=ags_config)


def test_a_handle_of_a_command_that_never_was_is_an_unknown_outcome(instance, ags_config):
    with pytest.raises(OutcomeUnknownError):
        wait_command.fn(CommandHandle(instance_id=instance.id, key="0" * 32, command="x"), config=ags_config)


def test_a_retried_flow_run_starts_no_second_command(instance, run, ags_config, prefect_server):
    Secret(value="swordfish-swordfish").save("command-secret", overwrite=True)
    attempts = []

    @flow(retries=1)
    def flaky():
        handle = start_command(
            instance, "echo $KEY; echo x >> count; sleep 1", secrets={"KEY": "command-secret"}, config=ags_config
        )
        attempts.append(handle)
        if len(attempts) == 1:
            raise RuntimeError("again")
        return wait_command(handle, config=ags_config)

    result = flaky()
    assert attempts[0] == attempts[1]
    assert result.stdout == "********\n"
    assert run("cat count").stdout == "x\n"
    assert "swordfish" not in attempts[0].model_dump_json()


def test_a_background_command_does_not_hold_the_task(instance, ags_config):
    started = time.monotonic()
    handle = start_command.fn(instance, "sleep 30", config=ags_config)
    assert time.monotonic() - started < 10
    kill_command.fn(handle, config=ags_config)


@pytest.mark.parametrize("durable", [True, False])
def test_a_tool_may_have_any_path(ags_config, durable):
    tool = ToolSpec(name="elsewhere", image="python:3.11", env={"PATH": "/opt/elsewhere"})
    with sandbox_session(tool, config=ags_config) as sandbox:
        sandbox.write("given", "given")
        assert sandbox.run("echo done; cat given", durable=durable).stdout == "done\ngiven"
