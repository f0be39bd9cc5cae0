"""What was wrong with the tool that this facade succeeds, and must not come back."""

import os
import subprocess
import sys

import pytest

from ags_flows import AGSConfig, AGSRuntime
from ags_flows.errors import (
    ConfigurationError,
    ConflictError,
    CredentialsError,
    InstanceFailedError,
    NotFoundError,
    ToolFailedError,
    UnsupportedError,
)
from ags_flows.ownership import LIVE


def live(runtime):
    return [one.InstanceId for one in runtime.list_instances(limit=None).InstanceSet if one.Status in LIVE]


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_lost_response_starts_no_second_sandbox_and_creates_no_second_tool(runtime, ags_emulator, how):
    ags_emulator.repeat_client_tokens(how)
    ags_emulator.fault("lost", "CreateSandboxTool")
    tool_id = runtime.create_tool("once", "python:3.11")
    assert [tool.ToolId for tool in runtime.list_tools(tool_name="once").SandboxToolSet] == [tool_id]
    ags_emulator.fault("lost", "StartSandboxInstance")
    instance_id = runtime.start_instance(tool_id)
    assert live(runtime) == [instance_id]


def test_two_calls_with_equal_arguments_are_two_instances(runtime):
    assert runtime.start_instance(tool_name="base") != runtime.start_instance(tool_name="base")


def test_what_an_instance_has_different_from_its_tool_is_applied(runtime):
    tool_id = runtime.create_tool("plain", "team/app:1")
    instance_id = runtime.start_instance(
        tool_id,
        custom_config={
            "image": "team/app:2",
            "image_registry_type": "personal",
            "env_vars": [{"name": "MODE", "value": "slow"}],
            "cpu": "2",
        },
    )
    (instance,) = runtime.list_instances([instance_id]).InstanceSet
    applied = instance.CustomConfiguration
    assert (applied.Image, applied.Env[0].Value, applied.Resources.CPU) == ("team/app:2", "slow", "2000m")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda runtime: runtime.start_instance("sdt-12345678", custom_config={"Image": "x"}), "'Image' means nothing"),
        (lambda runtime: runtime.start_instance("sdt-12345678", "base"), "not both"),
        (lambda runtime: runtime.start_instance(), "No tool is given"),
        (lambda runtime: runtime.start_instance(tool_name="base", timeout="5s"), "timeout='5s' is out of range"),
        (lambda runtime: runtime.create_tool("a b", "x"), "'a b' is not a tool name"),
        (lambda runtime: runtime.create_tool("a", "x", ports=[{"port": 80}]), r"ports\[0\]: 'name' is missing"),
        (lambda runtime: runtime.create_tool("a", "x", env_vars=[{"Name": "A"}]), r"env_vars\[0\]: 'Name' means"),
        (lambda runtime: runtime.create_tool("a", "x", env_vars={"A": "1"}), "env_vars must be a list"),
        (lambda runtime: runtime.create_tool("a", "x", tool_default_timeout="never"), "default_timeout.*'never'"),
        (lambda runtime: runtime.create_tool("a", "x", storage_mounts=[{"name": "m"}]), "'image', 'mount_path' is"),
        (lambda runtime: runtime.list_tools(limit=-1), "limit must be an integer >= 0"),
        (lambda runtime: runtime.list_tools(offset=-1), "offset must be an integer >= 0"),
        (lambda runtime: runtime.get_tool(), "tool_id or tool_name"),
        (lambda runtime: runtime.get_instance_url("a", 70000), "port must be at most 65535"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(runtime, ags_emulator, what, told):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match=told):
        what(runtime)
    assert ags_emulator.overview()["requests"] == before


def test_a_name_that_is_not_there_is_a_clear_error(runtime):
    with pytest.raises(NotFoundError, match="no tool 'nowhere'"):
        runtime.get_tool(tool_name="nowhere")
    with pytest.raises(NotFoundError, match="nowhere"):
        runtime.start_instance(tool_name="nowhere")
    assert runtime.list_tools(tool_name="nowhere").TotalCount == 0


def test_the_mount_of_the_configuration_holds_unless_one_is_given(ags_config):
    mount = {"mount_name": "nix", "mount_image": "tools/nix:1", "role_arn": "qcs::cam::uin/1:roleName/r"}
    runtime = AGSRuntime(ags_config.model_copy(update=mount))
    own = {"name": "own", "mount_path": "/own", "image": "tools/own:1", "readonly": True, "subpath": "/usr"}
    names = {}
    for name, mounts in (("default", None), ("own", [own])):
        tool_id = runtime.create_tool(name, "team/app:1", storage_mounts=mounts)
        names[name] = [(one.Name, one.MountPath, one.ReadOnly) for one in runtime.get_tool(tool_id).StorageMounts]
    assert names == {"default": [("nix", "/nix", False)], "own": [("own", "/own", True)]}


def test_bytes_directories_and_modes_arrive_as_they_were(runtime, sandbox, tmp_path):
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "all.bin").write_bytes(bytes(range(256)) * 1000)
    (source / "run.sh").write_text("echo hi\n")
    (source / "run.sh").chmod(0o755)
    runtime.upload_file_to_sandbox(sandbox, source, "/data")
    assert runtime.execute_command_in_sandbox(sandbox, "/data/run.sh").stdout == "hi\n"
    runtime.download_file_from_sandbox(sandbox, "/data", tmp_path / "back")
    assert (tmp_path / "back" / "all.bin").read_bytes() == (source / "all.bin").read_bytes()
    assert (tmp_path / "back" / "empty").is_dir()
    assert (tmp_path / "back" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_no_token_is_printed_or_logged_and_the_environment_is_left_alone(runtime, ags_emulator, capfd, caplog):
    before = dict(os.environ)
    caplog.set_level("DEBUG")
    sandbox = runtime.create_e2b_sandbox("code-interpreter-v1")
    token = runtime.acquire_token(sandbox.sandbox_id)
    runtime.execute_command_in_sandbox(sandbox, "echo hi")
    sandbox.kill()
    runtime.create_e2b_sandbox("base", api_key=ags_emulator.api_key).kill()
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "AcquireSandboxInstanceToken" in printed
    assert token[:20] not in printed and "sit_" not in printed and ags_emulator.api_key not in printed
    assert dict(os.environ) == before


def test_variables_of_another_sandbox_service_lead_nowhere(runtime, monkeypatch):
    monkeypatch.setenv("E2B_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("E2B_SANDBOX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("E2B_DOMAIN", "example.invalid")
    with runtime.create_e2b_sandbox("base") as sandbox:
        assert sandbox.commands.run("echo here").stdout == "here\n"


def test_lists_go_on_after_the_first_hundred(runtime, ags_emulator):
    ags_emulator.limits(tools=200)
    control = runtime.control
    for number in range(115):
        control.call("CreateSandboxTool", {"ToolName": f"many-{number}", **TOOL})
    assert len(runtime.list_tools().SandboxToolSet) == 20
    everything = runtime.list_tools(limit=None)
    assert len(everything.SandboxToolSet) == everything.TotalCount == 117
    assert len(runtime.list_tools(limit=110, offset=3).SandboxToolSet) == 110
    assert [one.ToolId for one in runtime.list_tools(limit=5, offset=104).SandboxToolSet] == [
        one.ToolId for one in everything.SandboxToolSet[104:109]
    ]
    ids = [tool.ToolId for tool in everything.SandboxToolSet]
    chosen = runtime.list_tools(tool_ids=ids, limit=None)
    assert {tool.ToolId for tool in chosen.SandboxToolSet} == set(ids) and chosen.TotalCount == 117


TOOL = {"ToolType": "browser", "NetworkConfiguration": {"NetworkMode": "PUBLIC"}}


def test_one_connection_serves_many_calls(ags_config, ags_emulator):
    runtime = AGSRuntime(ags_config)
    # Other tests of this process may have used the same account in several threads.
    runtime.control.close()
    runtime.list_tools()
    transport = runtime.control._transport
    for _ in range(5):
        AGSRuntime(ags_config).list_tools()
    assert AGSRuntime(ags_config).control._transport is transport
    assert len(transport._idle) == 1


def test_what_does_not_start_is_stopped(runtime, ags_emulator):
    ags_emulator.transition("instance.start", "fail", reason="no capacity", times=1)
    with pytest.raises(InstanceFailedError):
        runtime.start_instance(tool_name="base")
    ags_emulator.transition("instance.start", "never")
    slow = AGSRuntime(runtime.config.model_copy(update={"startup_timeout": 0.5}))
    with pytest.raises(TimeoutError):
        slow.start_instance(tool_name="base")
    ags_emulator.reset_transitions()
    assert live(runtime) == []


def test_a_tool_that_fails_and_a_name_that_is_taken_have_clear_errors(runtime, ags_emulator):
    ags_emulator.transition("tool.create", "fail", reason="image not found", times=1)
    with pytest.raises(ToolFailedError, match="image not found"):
        runtime.create_tool("broken", "team/none:1")
    runtime.create_tool("taken", "python:3.11")
    with pytest.raises(ConflictError, match="named 'taken' already"):
        runtime.create_tool("taken", "python:3.12")


def test_code_without_a_code_interpreter_has_an_error_with_a_hint(runtime):
    with runtime.create_e2b_sandbox("base") as sandbox:
        with pytest.raises(UnsupportedError, match="upload the code and execute it as a command"):
            runtime.execute_code_in_sandbox(sandbox, "1")
        with pytest.raises(ConfigurationError, match="cobol"):
            runtime.execute_code_in_sandbox(sandbox, "1", language="cobol")


@pytest.mark.parametrize("language", ["js", "JS", "ts", "TypeScript"])
def test_a_language_has_its_short_name_in_any_case(runtime, language):
    with runtime.create_e2b_sandbox("base") as sandbox, pytest.raises(UnsupportedError):
        runtime.execute_code_in_sandbox(sandbox, "1", language=language)


def test_an_api_key_alone_is_enough_for_a_sandbox(ags_emulator, monkeypatch):
    runtime = AGSRuntime(AGSConfig(http_endpoint=ags_emulator.url))
    with runtime.create_e2b_sandbox("base", api_key=ags_emulator.api_key) as sandbox:
        assert runtime.execute_command_in_sandbox(sandbox, "echo hi").stdout == "hi\n"
    with pytest.raises(CredentialsError, match="api_key"):
        runtime.create_e2b_sandbox("base")
    monkeypatch.setenv("E2B_API_KEY", ags_emulator.api_key)
    runtime.create_e2b_sandbox("base").kill()


def test_the_token_of_a_sandbox_object_is_acquired_again_before_it_expires(runtime, sandbox, monkeypatch):
    from ags_flows.cloud import live_token
    from ags_flows.cloud.data_planes import open_plane

    plane = open_plane(runtime.connection, sandbox.sandbox_id).plane
    before = sandbox._envd_access_token
    # As if the token had less than a minute left, and had been acquired a minute ago.
    monkeypatch.setattr(live_token, "REFRESH_BEFORE", live_token.REFRESH_BEFORE * 10_000)
    monkeypatch.setattr(plane.token, "_acquired", plane.token._acquired - 60)
    assert sandbox.commands.run("echo fresh").stdout == "fresh\n"
    assert sandbox._envd_access_token != before


def test_no_prefect_server_is_needed_or_started(ags_emulator, tmp_path):
    code = """
from ags_flows import AGSRuntime
runtime = AGSRuntime()
with runtime.create_e2b_sandbox("base") as sandbox:
    print(runtime.execute_command_in_sandbox(sandbox, "echo alone").stdout, end="")
"""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        **ags_emulator.environment,
    }
    # The vendor's SDK signs with what Python 3.12 deprecates.
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning:tencentcloud.common.abstract_client"]
    done = subprocess.run(
        [sys.executable, *warnings, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "alone\n"), done.stderr
    assert done.stderr == ""
    assert not list((tmp_path / "prefect").rglob("*.db"))
