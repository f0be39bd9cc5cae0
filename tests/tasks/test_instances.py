"""Instances against the emulator: overrides, snapshots, clones, lists, pauses, and their errors."""

import httpx
import pytest

from ags_flows import tasks
from ags_flows.errors import (
    ConfigurationError,
    ConflictError,
    InstanceGoneError,
    NotFoundError,
    QuotaExceededError,
    UnreachableError,
    UnsupportedError,
)
from ags_flows.lifecycle.waiting import wait_instance_status
from ags_flows.models import (
    CustomConfiguration,
    ImageSource,
    MountOption,
    Resources,
    StorageMount,
    ToolSpec,
)


@pytest.fixture(autouse=True)
def quick(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")


@pytest.fixture
def tool(ags_config):
    mounts = (StorageMount(name="data", mount_path="/mnt/data", source=ImageSource(image="tools/data:1")),)
    spec = ToolSpec(name="etl", image="python:3.11", env={"MODE": "slow", "KEPT": "yes"}, mounts=mounts)
    return tasks.create_tool.fn(spec, config=ags_config)


@pytest.fixture
def start(tool, ags_config):
    def started(**options):
        instance = tasks.start_instance.fn(options.pop("tool", tool), config=ags_config, **options)
        return tasks.wait_instance_running.fn(instance, config=ags_config)

    return started


def run(instance, command, config):
    return tasks.exec_command.fn(instance, command, durable=False, log_output=False, config=config).stdout.strip()


def raw(config, instance):
    return config.control_plane().call("DescribeSandboxInstanceList", {"InstanceIds": [instance.id]})["InstanceSet"][0]


def test_overrides_are_really_applied(start, ags_config):
    instance = start(
        custom=CustomConfiguration(
            image="python:3.12", env={"MODE": "fast"}, resources=Resources(cpu="2", memory="3Gi")
        ),
        mount_options=[MountOption(name="data", mount_path="/data", readonly=True)],
        auth_mode="NONE",
        metadata={"day": "2026-11-22"},
    )
    assert run(instance, "echo $MODE $KEPT", ags_config) == "fast yes"
    assert run(instance, "ls -d /data; touch /data/x || echo read-only", ags_config) == "/data\nread-only"
    shown = raw(ags_config, instance)["CustomConfiguration"]
    assert (shown["Image"], shown["Resources"]["CPU"], shown["Resources"]["Memory"]) == (
        "python:3.12",
        "2000m",
        "3072Mi",
    )
    assert instance.auth_mode == "NONE" and instance.metadata["day"] == "2026-11-22"
    health = httpx.get(f"{tasks.get_instance_url.fn(instance, 49983, config=ags_config)}/health", trust_env=False)
    assert health.status_code < 300


def test_a_command_that_is_overridden_is_what_runs(start, ags_config):
    instance = start(custom=CustomConfiguration(command=("/bin/sh", "-c"), args=("echo it > /tmp/ran; sleep 60",)))
    assert run(instance, "sleep 0.5; cat /tmp/ran", ags_config) == "it"


def test_an_override_that_is_left_out_stops_the_instance_and_is_an_error(start, ags_config, monkeypatch):
    control = ags_config.control_plane()
    send = control._transport.call

    def forgetful(action, parameters, *rest):
        # An AGS that takes the field and does nothing with it.
        if action == "StartSandboxInstance":
            parameters = {key: value for key, value in parameters.items() if key != "CustomConfiguration"}
        return send(action, parameters, *rest)

    monkeypatch.setattr(control._transport, "call", forgetful)
    with pytest.raises(UnsupportedError, match=r"without Image='python:3.12' \(it has 'python:3.11'\), Env MODE"):
        start(custom=CustomConfiguration(image="python:3.12", env={"MODE": "fast"}))
    assert [one.status for one in tasks.list_instances.fn(config=ags_config) if one.status == "RUNNING"] == []


def test_an_instance_starts_from_a_snapshot_and_as_a_clone(start, ags_config):
    first = start()
    run(first, "echo kept > /home/user/note", ags_config)
    snapshot = tasks.create_snapshot.fn(first, "before", tags={"keep": "7d"}, config=ags_config)
    run(first, "echo later > /home/user/note", ags_config)
    saved = start(tool=None, snapshot_id=snapshot.id)
    cloned = start(tool=None, source_instance_id=first.id)
    assert run(saved, "cat note", ags_config) == "kept"
    assert run(cloned, "cat note", ags_config) == "later"
    assert [one.name for one in tasks.list_snapshots.fn(first, config=ags_config)] == ["before"]
    tasks.delete_snapshot.fn(snapshot, config=ags_config)
    assert tasks.list_snapshots.fn(config=ags_config) == []


def test_instances_are_listed_over_all_pages_and_filtered_by_metadata(tool, ags_config):
    control = ags_config.control_plane()
    for number in range(105):
        control.start_instance(tool=tool.id, metadata={"shard": str(number % 3), "n": str(number)})
    listed = tasks.list_instances.fn(tool, config=ags_config)
    assert len(listed) == 105
    assert len(tasks.list_instances.fn("etl", metadata={"shard": "1"}, config=ags_config)) == 35
    assert len(tasks.list_instances.fn(metadata={"n": "104"}, config=ags_config)) == 1
    assert len(tasks.list_instances.fn(limit=3, config=ags_config)) == 3
    control.stop_instance(listed[0].id)
    wait_instance_status(control, listed[0].id, goal="STOPPED", timeout=30)
    ended = tasks.list_instances.fn(tool, status="STOPPED", config=ags_config)
    assert [one.id for one in ended] == [listed[0].id]


def test_an_instance_is_extended_paused_and_resumed_with_a_timeout(start, ags_config):
    instance = start(timeout="5m")
    assert tasks.extend_instance.fn(instance, "20m", config=ags_config).timeout == 1200
    run(instance, "echo kept > note", ags_config)
    assert tasks.pause_instance.fn(instance, config=ags_config).status == "PAUSED"
    assert tasks.pause_instance.fn(instance, config=ags_config).status == "PAUSED"
    resumed = tasks.resume_instance.fn(instance, "40m", config=ags_config)
    assert (resumed.status, resumed.timeout) == ("RUNNING", 2400)
    assert tasks.resume_instance.fn(instance, "40m", config=ags_config).status == "RUNNING"
    assert run(instance, "cat note", ags_config) == "kept"
    tasks.stop_instance.fn(instance, config=ags_config)
    tasks.stop_instance.fn(instance, config=ags_config)


def test_quotas_have_what_is_used_and_what_is_left(start, ags_config, ags_emulator):
    ags_emulator.limits(quotas=True, instances=5)
    start()
    quotas = tasks.get_quotas.fn(config=ags_config)
    assert (quotas.instances.used, quotas.instances.free) == (1, 4)
    assert "instances 1 of 5" in str(quotas)


# What goes wrong, and the messages.


def test_a_quota_that_is_reached_is_an_error_with_the_usage_and_a_hint(start, ags_emulator):
    ags_emulator.limits(quotas=True, instances=1)
    start()
    with pytest.raises(QuotaExceededError, match=r"instances 1 of 1.*ags-flows ps.*ags-flows stop"):
        start()


def test_a_lease_that_is_over_is_reported_by_every_step(start, ags_config, ags_emulator):
    instance = start(timeout="1m")
    ags_emulator.advance(61)
    wait_instance_status(ags_config.control_plane(), instance.id, goal="STOPPED", timeout=30)
    for step in (tasks.extend_instance, tasks.pause_instance, tasks.resume_instance):
        with pytest.raises(InstanceGoneError, match=r"has ended \(its timeout was over\).*longer timeout"):
            step.fn(instance, config=ags_config)
    with pytest.raises(InstanceGoneError, match=instance.id):
        run(instance, "true", ags_config)
    with pytest.raises(InstanceGoneError, match=instance.id):
        tasks.read_file.fn(instance, "note", config=ags_config)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": "5s"}, r"timeout='5s'.*30s to 24h"),
        ({"auth_mode": "OPEN"}, r"auth_mode='OPEN'.*TOKEN"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"source_instance_id": "a b"}, "^source_instance_id must be the id of an instance, got 'a b'"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_request(start, ags_config, options, told):
    with pytest.raises(ConfigurationError, match=told):
        start(**options)
    assert tasks.list_instances.fn(config=ags_config) == []


def test_neither_tool_nor_snapshot_has_a_clear_error(ags_config):
    with pytest.raises(ConfigurationError, match="tool is empty"):
        tasks.start_instance.fn(config=ags_config)


def test_what_is_not_there_is_named_in_the_error(start, ags_config):
    with pytest.raises(NotFoundError, match="nightly"):
        start(tool="nightly")
    with pytest.raises(NotFoundError, match="gone"):
        tasks.get_instance.fn("gone", config=ags_config)
    with pytest.raises(NotFoundError, match="'other'.*mounts that the tool has"):
        start(mount_options=[MountOption(name="other", mount_path="/data")])


def test_a_tool_that_is_not_ready_has_a_clear_error(ags_config, ags_emulator):
    ags_emulator.transition("tool.create", "seconds", 30)
    tool = tasks.create_tool.fn(ToolSpec(name="slow", image="python:3.11"), config=ags_config)
    with pytest.raises(ConflictError, match="wait_tool_active"):
        tasks.start_instance.fn(tool, config=ags_config)


def test_a_call_to_a_paused_sandbox_gets_an_error_that_names_what_to_do(start, ags_config):
    instance = start(timeout="5m")
    tasks.pause_instance.fn(instance, config=ags_config)
    with pytest.raises(UnreachableError, match="has not ended. If it is paused, resume it") as caught:
        tasks.read_file.fn(instance, "file", config=ags_config)
    assert "stopped" not in str(caught.value) and "timeout" not in str(caught.value)
