"""What runs in an instance: its command, its probe, its environment, its mounts; reached with the real e2b SDK."""

import time

import httpx
import pytest
from e2b import E2B, ConnectionConfig, Sandbox
from e2b.exceptions import AuthenticationException, TimeoutException
from packaging.version import Version

from ags_flows.emulator import Emulator

PUBLIC = {"NetworkMode": "PUBLIC"}
ROLE = "qcs::cam::uin/100000000001:roleName/sandbox"


def attach(emulator, instance_id, token):
    """Return the SDK's sandbox object for an instance, by its token alone."""
    headers = {"X-Access-Token": token, "E2b-Sandbox-Id": instance_id, "E2b-Sandbox-Port": "49983"}
    config = ConnectionConfig(sandbox_url=emulator.url, extra_sandbox_headers=headers)
    return Sandbox(
        sandbox_id=instance_id,
        sandbox_domain=None,
        envd_version=Version("0.6.13"),
        envd_access_token=token,
        connection_config=config,
    )


@pytest.fixture
def run(cloud, emulator):
    """Start an instance of a new tool; return its id and the SDK's object for it."""

    def start(custom=None, status="RUNNING", seconds=15, tool=None, **more):
        emulator.transition("tool.create", "at_once")
        fields = {"ToolName": f"t{time.monotonic_ns()}", "ToolType": "custom", "NetworkConfiguration": PUBLIC}
        fields["CustomConfiguration"] = {"Image": "app:1", "ImageRegistryType": "personal", **(custom or {})}
        tool_id = cloud("CreateSandboxTool", **fields, **(tool or {}))["ToolId"]
        instance_id = cloud("StartSandboxInstance", ToolId=tool_id, **more)["Instance"]["InstanceId"]
        deadline = time.monotonic() + seconds
        while True:
            found = cloud("DescribeSandboxInstanceList", InstanceIds=[instance_id])["InstanceSet"][0]
            if found["Status"] == status:
                break
            assert found["Status"] == "STARTING" and time.monotonic() < deadline, (found, emulator.overview())
            time.sleep(0.02)
        if status != "RUNNING":
            return instance_id, None
        token = cloud("AcquireSandboxInstanceToken", InstanceId=instance_id)["Token"]
        return instance_id, attach(emulator, instance_id, token)

    return start


def wait(cloud, instance_id, status):
    deadline = time.monotonic() + 10
    while cloud("DescribeSandboxInstanceList", InstanceIds=[instance_id])["InstanceSet"][0]["Status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reason(emulator, instance_id):
    regions = emulator.overview()["regions"].values()
    return next(
        each["StatusReason"] for region in regions for each in region["instances"] if each["InstanceId"] == instance_id
    )


SERVER = "from http.server import *; ThreadingHTTPServer(('', 8000), SimpleHTTPRequestHandler).serve_forever()"
PROBE = {"HttpGet": {"Path": "/", "Port": 8000, "Scheme": "HTTP"}, "ReadyTimeoutMs": 10000, "ProbePeriodMs": 50}


def test_an_instance_is_ready_when_its_commands_probe_has_passed(run, emulator, cloud):
    custom = {"Command": ["/bin/sh", "-c"], "Args": [f'sleep 0.3; exec python3 -c "{SERVER}"'], "Probe": PROBE}
    began = time.monotonic()
    instance_id, sandbox = run(custom, AuthMode="PUBLIC")
    assert time.monotonic() - began >= 0.3
    answer = httpx.get(f"{emulator.url}/", headers={"X-Sandbox-ID": instance_id, "X-Sandbox-Port": "8000"})
    assert answer.status_code == 200


def test_a_command_that_ends_or_never_responds_makes_the_start_fail_with_the_reason(run, emulator):
    custom = {"Command": ["/bin/sh", "-c", "echo no licence >&2; exit 3"], "Probe": PROBE}
    instance_id, _ = run(custom, status="STARTING_FAILED")
    assert "code 3" in reason(emulator, instance_id) and "no licence" in reason(emulator, instance_id)
    custom = {"Command": ["sleep", "60"], "Probe": {**PROBE, "ReadyTimeoutMs": 300}}
    instance_id, _ = run(custom, status="STARTING_FAILED")
    assert "port 8000" in reason(emulator, instance_id)


def test_a_probe_without_a_command_and_a_command_that_starts_envd_need_nothing(run):
    run({"Probe": PROBE})
    _, sandbox = run(
        {"Command": ["/mnt/envd", "-port", "49983"], "Probe": {"HttpGet": {"Path": "/health", "Port": 49983}}}
    )
    assert sandbox.commands.run("echo it works").stdout == "it works\n"


def test_the_environment_reaches_command_and_processes_and_can_be_overridden(run):
    custom = {
        "Command": ["/bin/sh", "-c", 'echo "$A $B" > /tmp/seen; sleep 60'],
        "Env": [{"Name": "A", "Value": "tool"}, {"Name": "B", "Value": "tool"}],
    }
    _, sandbox = run(custom, CustomConfiguration={"Env": [{"Name": "B", "Value": "instance"}]})
    deadline = time.monotonic() + 5
    while not sandbox.files.exists("/tmp/seen") or not sandbox.files.read("/tmp/seen"):
        assert time.monotonic() < deadline
    assert sandbox.files.read("/tmp/seen") == "tool instance\n"
    assert sandbox.commands.run('echo "$A $B"').stdout == "tool instance\n"
    assert sandbox.commands.run('echo "$B"', envs={"B": "call"}).stdout == "call\n"


def test_a_pause_freezes_processes_and_a_resume_lets_them_go_on(run, cloud):
    instance_id, sandbox = run()
    sandbox.commands.run("while true; do echo x >> /tmp/ticks; sleep 0.02; done", background=True, timeout=0)

    time.sleep(0.2)
    cloud("PauseSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "PAUSED")
    with pytest.raises(TimeoutException, match="not found"):
        sandbox.files.read("/tmp/ticks")
    time.sleep(0.5)
    cloud("ResumeSandboxInstance", InstanceId=instance_id, Timeout="5m")
    wait(cloud, instance_id, "RUNNING")
    first = len(sandbox.files.read("/tmp/ticks"))
    time.sleep(0.3)
    second = len(sandbox.files.read("/tmp/ticks"))
    assert 0 < first < 2 * 25 and second > first


def test_a_pause_without_memory_keeps_the_files_only(run, cloud):
    instance_id, sandbox = run()
    sandbox.files.write("/home/user/kept", "kept")
    sandbox.commands.run("sleep 300", background=True, timeout=0)
    cloud("PauseSandboxInstance", InstanceId=instance_id, Memory=False)
    wait(cloud, instance_id, "PAUSED")
    cloud("ResumeSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "RUNNING")
    assert sandbox.files.read("/home/user/kept") == "kept"
    assert sandbox.commands.list() == []


def test_expired_tokens_are_refused_and_a_new_one_is_taken(run, cloud, emulator):
    instance_id, sandbox = run()
    emulator.expire_tokens(instance_id)
    with pytest.raises(AuthenticationException):
        sandbox.files.list("/")
    token = cloud("AcquireSandboxInstanceToken", InstanceId=instance_id)["Token"]
    assert attach(emulator, instance_id, token).files.list("/")


def test_a_full_disk_refuses_to_be_written_to(run, emulator):
    instance_id, sandbox = run()
    emulator.fill_disk(instance_id)
    with pytest.raises(Exception, match="(?i)space"):
        sandbox.files.write("/home/user/more", "x")
    emulator.fill_disk(instance_id, full=False)
    sandbox.files.write("/home/user/more", "x")


def test_a_sandbox_that_dies_ends_its_streams(run, emulator):
    instance_id, sandbox = run()
    command = sandbox.commands.run("sleep 300", background=True, timeout=0)
    emulator.kill_sandbox(instance_id)
    with pytest.raises(TimeoutException, match="killed or reached its end of life"):
        command.wait()
    assert sandbox.is_running() is False


def test_a_storage_size_is_a_limit(run):
    _, sandbox = run({"Resources": {"Storage": "1Gi"}})
    size = int(sandbox.commands.run("df --output=size -B1 /home/user | tail -1").stdout)
    assert size <= 1024**3


def test_mounts_appear_where_they_should(tmp_path, cloud_with):
    def mount(name, target, **more):
        source = {"Cos": {"Endpoint": "cos.example", "BucketName": "b-125", "BucketPath": "/in"}}
        return {"Name": name, "MountPath": target, "StorageSource": source, **more}

    (tmp_path / "cos" / "b-125" / "in" / "sub").mkdir(parents=True)
    (tmp_path / "cos" / "b-125" / "in" / "a.txt").write_text("from the bucket")
    with Emulator(volumes=tmp_path) as emulator:
        emulator.transition("tool.create", "at_once")
        sdk = E2B(api_key=emulator.api_key, api_url=emulator.url, sandbox_url=emulator.url)
        client = cloud_with(emulator=emulator)
        mounts = [mount("rw", "/data/rw"), mount("ro", "/data/ro", ReadOnly=True)]
        client(
            "CreateSandboxTool",
            ToolName="mounted",
            ToolType="custom",
            NetworkConfiguration=PUBLIC,
            CustomConfiguration={"Image": "app:1"},
            RoleArn=ROLE,
            StorageMounts=mounts,
        )
        sandbox = sdk.Sandbox.create("mounted")
        assert sandbox.commands.run("cat /data/rw/a.txt /data/ro/a.txt").stdout == "from the bucket" * 2
        sandbox.commands.run("echo out > /data/rw/out.txt", user="root")
        assert (tmp_path / "cos" / "b-125" / "in" / "out.txt").read_text() == "out\n"
        assert sandbox.commands.run("touch /data/ro/x 2>&1 || echo refused", user="root").stdout.endswith("refused\n")
        sandbox.kill()
        assert (tmp_path / "cos" / "b-125" / "in" / "a.txt").exists()
