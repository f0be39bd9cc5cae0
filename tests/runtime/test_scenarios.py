"""What users of the facade do, each from its beginning to its end."""

import hashlib
import os
import re
import time

import e2b
import e2b_code_interpreter
import httpx
import pytest

from ags_flows.errors import NotFoundError

ENVD = {"name": "envd", "mount_path": "/mnt", "image": "tools/envd:0.5.7", "image_registry_type": "personal"}


def states(runtime, tool_id):
    return {one.InstanceId: one.Status for one in runtime.list_instances(tool_id=tool_id, limit=None).InstanceSet}


def test_a_tool_an_instance_a_token_and_a_url_come_and_go(runtime):
    tool_id = runtime.create_tool("first", "python:3.11")
    assert runtime.get_tool(tool_id).Status == "ACTIVE"
    instance_id = runtime.start_instance(tool_id)
    assert states(runtime, tool_id) == {instance_id: "RUNNING"}
    token, url = runtime.acquire_token(instance_id), runtime.get_instance_url(instance_id, 49983)
    assert httpx.get(f"{url}/health", headers={"X-Access-Token": token}).status_code == 204
    runtime.stop_instance(instance_id)
    runtime.stop_instance(instance_id)
    assert states(runtime, tool_id)[instance_id] in ("STOPPING", "STOPPED")
    runtime.delete_tool(tool_id)
    runtime.delete_tool(tool_id)
    with pytest.raises(NotFoundError, match=f"no tool {tool_id!r}"):
        runtime.get_tool(tool_id)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's emulator has no other users to give")
@pytest.mark.parametrize("with_key", [False, True], ids=["by the keys of the cloud", "by an E2B API key"])
def test_a_sandbox_of_the_sdk_does_all_that_the_sdk_does(runtime, ags_emulator, with_key, tmp_path):
    sandbox = runtime.create_e2b_sandbox("code-interpreter-v1", api_key=ags_emulator.api_key if with_key else None)
    assert isinstance(sandbox, e2b.Sandbox) and isinstance(sandbox, e2b_code_interpreter.Sandbox)

    lines, errors = [], []
    done = runtime.execute_command_in_sandbox(
        sandbox, "id -un; echo oh >&2", on_stdout=lines.append, on_stderr=errors.append
    )
    assert (done.stdout, done.stderr, done.exit_code, lines, errors) == ("root\n", "oh\n", 0, ["root\n"], ["oh\n"])
    assert runtime.execute_command_in_sandbox(sandbox, "id -un", user="user").stdout == "user\n"
    with pytest.raises(e2b.CommandExitException) as failed:
        runtime.execute_command_in_sandbox(sandbox, "echo half; exit 3")
    assert (failed.value.exit_code, failed.value.stdout) == (3, "half\n")

    printed = []
    ran = runtime.execute_code_in_sandbox(
        sandbox, "print('seen')\n6 * 7", on_stdout=lambda message: printed.append(message.line)
    )
    assert (ran.text, ran.error, printed) == ("42", None, ["seen\n"])
    assert runtime.execute_code_in_sandbox(sandbox, "1 / 0").error.name == "ZeroDivisionError"
    assert runtime.execute_code_in_sandbox(sandbox, "6 * 7", language="Python").text == "42"

    (tmp_path / "in.bin").write_bytes(bytes(range(256)))
    runtime.upload_file_to_sandbox(sandbox, tmp_path / "in.bin", "/data/in.bin")
    assert bytes(sandbox.files.read("/data/in.bin", format="bytes")) == bytes(range(256))
    assert sandbox.commands.run("stat -c %U /data/in.bin").stdout == "root\n"

    sandbox.set_timeout(900)
    assert sandbox.is_running()
    assert sandbox.kill()
    assert not sandbox.is_running()
    assert not [one for one in runtime.list_instances(status="RUNNING").InstanceSet]


def test_a_background_command_streams_is_waited_for_and_is_killed_with_all_that_it_started(runtime, sandbox):
    lines = []
    counting = runtime.execute_command_in_sandbox(
        sandbox, "for i in 1 2 3; do echo $i; sleep 0.3; done", background=True, on_stdout=lines.append
    )
    assert not counting.done
    assert counting.wait(60).stdout == "1\n2\n3\n"
    assert lines == ["1\n", "2\n", "3\n"]

    forever = runtime.execute_command_in_sandbox(sandbox, "sleep 1234 & sleep 1234", background=True)
    with pytest.raises(TimeoutError, match="still running"):
        forever.wait(0.5)
    forever.kill()
    with pytest.raises(e2b.CommandExitException):
        forever.wait(60)
    assert "sleep 1234" not in sandbox.commands.run("cat /proc/[0-9]*/cmdline 2>&1 | tr '\\0' ' '").stdout


def test_a_custom_image_gets_envd_from_another_image(runtime):
    tool_id = runtime.create_tool(
        "with-envd",
        "team/app:1",
        command=["/bin/bash", "-c"],
        command_args=["/mnt/envd -port 49983"],
        probe_path="/health",
        probe_port=49983,
        role_arn="qcs::cam::uin/1:roleName/sandbox",
        storage_mounts=[ENVD],
    )
    tool = runtime.get_tool(tool_id)
    (mount,) = tool.StorageMounts
    assert (mount.Name, mount.MountPath, mount.StorageSource.Image.Reference) == ("envd", "/mnt", "tools/envd:0.5.7")
    assert tool.CustomConfiguration.Probe.HttpGet.Path == "/health"
    with runtime.create_e2b_sandbox("with-envd") as sandbox:
        assert runtime.execute_command_in_sandbox(sandbox, "test -d /mnt && echo mounted").stdout == "mounted\n"


def test_environment_ports_and_probe_are_applied_and_found_again(runtime):
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080, bind='0.0.0.0')"
    tool_id = runtime.create_tool(
        "web",
        "team/web:2",
        command=["python3", "-c"],
        command_args=[serve],
        env_vars=[{"name": "MODE", "value": "fast"}],
        ports=[{"name": "web", "port": 8080, "protocol": "TCP"}],
        probe_port=8080,
        tags=[{"key": "team", "value": "data"}],
    )
    instance_id = runtime.start_instance(tool_name="web", timeout="10m")
    answer = httpx.get(
        runtime.get_instance_url(instance_id, 8080), headers={"X-Access-Token": runtime.acquire_token(instance_id)}
    )
    assert "Directory listing" in answer.text
    found = runtime.list_tools(tags=[{"key": "team", "value": "data"}])
    assert [tool.ToolId for tool in found.SandboxToolSet] == [tool_id]
    assert found.SandboxToolSet[0].CustomConfiguration.Env[0].Value == "fast"
    assert runtime.list_tools(tags={"team": "ops"}).TotalCount == 0
    assert runtime.list_tools(tool_name="web", status="ACTIVE").TotalCount == 1
    for condition in ({"tool_id": tool_id}, {"tool_name": "web"}, {"instance_ids": [instance_id]}):
        assert [one.InstanceId for one in runtime.list_instances(**condition).InstanceSet] == [instance_id]
    assert runtime.list_instances(tool_id=tool_id, status="STOPPED").TotalCount == 0
    runtime.stop_instance(instance_id)


def name_of(image):
    short = re.sub(r"[^A-Za-z0-9_-]+", "-", image.rsplit("/", 1)[-1])
    return f"{short[:39]}-{hashlib.sha256(image.encode()).hexdigest()[:10]}"


def test_swe_bench_has_a_tool_for_each_image_applies_a_patch_and_collects_the_report(runtime, tmp_path):
    images = [f"swebench/sweb.eval.x86_64.project_1776_project-{number}:latest" for number in (1, 2)]
    for image in images:
        name = name_of(image)
        assert len(name) <= 50
        if not runtime.list_tools(tool_name=name).TotalCount:
            runtime.create_tool(
                name, image, image_registry_type="system", tags=[{"key": "image", "value": image[:127]}]
            )
    assert {runtime.list_tools(tags={"image": image}).TotalCount for image in images} == {1}

    repository, patch = tmp_path / "repository", tmp_path / "fix.patch"
    repository.mkdir()
    (repository / "value.txt").write_text("41\n")
    patch.write_text("--- a/value.txt\n+++ b/value.txt\n@@ -1 +1 @@\n-41\n+42\n")
    (tmp_path / "run_tests.sh").write_text(
        "cd /testbed && grep -qx 42 value.txt && echo '{\"resolved\": true}' > /report.json && echo PASSED\n"
    )
    for image in images:
        with runtime.create_e2b_sandbox(name_of(image), timeout=1800) as sandbox:
            # The image of a task has both; the emulator runs no images.
            runtime.upload_file_to_sandbox(sandbox, repository, "/testbed")
            runtime.upload_file_to_sandbox(sandbox, tmp_path / "run_tests.sh", "/run_tests.sh")
            runtime.upload_file_to_sandbox(sandbox, patch, "/tmp/fix.patch")
            runtime.execute_command_in_sandbox(sandbox, "cd /testbed && patch -p1 < /tmp/fix.patch")
            done = runtime.execute_command_in_sandbox(sandbox, "bash /run_tests.sh", timeout=600)
            assert done.stdout == "PASSED\n"
            report = tmp_path / f"{name_of(image)}.json"
            runtime.download_file_from_sandbox(sandbox, "/report.json", report)
            assert report.read_text() == '{"resolved": true}\n'


def test_swe_rex_reaches_a_server_on_port_8000_by_url_and_token(runtime, ags_emulator, tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "index.html").write_text("alive\n")
    sandbox = runtime.create_e2b_sandbox("base")
    runtime.upload_file_to_sandbox(sandbox, tmp_path / "server", "/srv/www")
    server = runtime.execute_command_in_sandbox(
        sandbox, "cd /srv/www && exec python3 -m http.server 8000", background=True
    )
    url = runtime.get_instance_url(sandbox.sandbox_id)

    def ask(token):
        return httpx.get(url, headers={"X-Access-Token": token})

    token, deadline = runtime.acquire_token(sandbox.sandbox_id), time.monotonic() + 60
    while (answer := ask(token)).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.text == "alive\n"
    assert ask("sit_wrong").status_code == 401
    ags_emulator.expire_tokens(sandbox.sandbox_id)
    assert ask(token).status_code == 401
    assert ask(runtime.acquire_token(sandbox.sandbox_id)).text == "alive\n"
    server.kill()
    sandbox.kill()


SCRIPT = """
from ags_flows import AGSRuntime

runtime = AGSRuntime(region="ap-guangzhou")
tool_id = runtime.create_tool(
    tool_name="as-ever", image="python:3.11", command=None, command_args=None, network_mode="PUBLIC",
    tool_description="As ever", tool_default_timeout="5m", role_arn="", image_registry_type="enterprise",
    ports=[{"name": "web", "port": 8000, "protocol": "TCP"}], env_vars=[{"name": "MODE", "value": "fast"}],
    cpu="1", memory="2Gi", tags=[{"key": "team", "value": "data"}], wait_for_active=True,
)
tools = runtime.list_tools(tool_ids=[tool_id], limit=20, offset=0)
print(tools.TotalCount, tools.SandboxToolSet[0].ToolName, tools.SandboxToolSet[0].Status)
instance_id = runtime.start_instance(
    tool_id=tool_id, timeout="5m", custom_config={"env_vars": [{"name": "A", "value": "b"}]}
)
print([one.Status for one in runtime.list_instances(instance_ids=[instance_id]).InstanceSet])
print(len(runtime.acquire_token(instance_id)) > 20, runtime.get_instance_url(instance_id, 8000).startswith("http"))
runtime.stop_instance(instance_id)
sandbox = runtime.create_e2b_sandbox("as-ever", timeout=600)
runtime.upload_file_to_sandbox(sandbox, "local.bin", "/data/remote.bin", user="root")
print(runtime.execute_command_in_sandbox(sandbox, "echo $MODE; md5sum < /data/remote.bin", user="root").stdout)
running = runtime.execute_command_in_sandbox(sandbox, "echo later", background=True)
print(running.wait().stdout)
sandbox.kill()
runtime.delete_tool(tool_id)
code = runtime.create_e2b_sandbox("code-interpreter-v1")
print(runtime.execute_code_in_sandbox(code, "6 * 7", language="python").text)
code.kill()
"""


def test_a_script_of_the_older_tool_runs_with_the_import_changed(ags_emulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    content = bytes(range(256))
    (tmp_path / "local.bin").write_bytes(content)
    exec(compile(SCRIPT, "script", "exec"), {})
    said = capsys.readouterr().out.split("\n")
    assert said[:2] == ["1 as-ever ACTIVE", "['RUNNING']"]
    assert said[2] == "True True"
    assert said[3:5] == ["fast", f"{hashlib.md5(content).hexdigest()}  -"]
    assert "later" in said and "42" in said
