"""Tools against the emulator: created, ensured, listed, changed, deleted, and their errors."""

import threading

import pytest

from ags_flows import tasks
from ags_flows.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    QuotaExceededError,
    ToolFailedError,
)
from ags_flows.models import (
    CfsSource,
    CosSource,
    CustomConfiguration,
    ImageSource,
    Network,
    Port,
    Probe,
    Resources,
    StorageMount,
    ToolSpec,
)

ROLE = "qcs::cam::uin/100000000001:roleName/ags"
ENVD = StorageMount(name="envd", mount_path="/mnt/envd", source=ImageSource(image="tools/envd:1", subpath="/envd"))


@pytest.fixture(autouse=True)
def quick_tools(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")
    ags_emulator.transition("tool.delete", "at_once")


@pytest.fixture
def ensure(ags_config):
    def ensured(replace=True, drain=0.0, **fields):
        spec = ToolSpec(**{"name": "etl", "image": "python:3.11", **fields})
        return tasks.ensure_tool.fn(spec, replace=replace, drain=drain, config=ags_config)

    return ensured


def raw(config, tool):
    return config.control_plane().call("DescribeSandboxToolList", {"ToolIds": [tool.id]})["SandboxToolSet"][0]


def test_a_tool_is_created_with_everything(ags_config):
    spec = ToolSpec(
        name="whole",
        image="python:3.11",
        command=("/bin/bash", "-c"),
        args=("/mnt/envd/envd -port 49983",),
        env={"MODE": "fast"},
        ports=(Port(name="web", port=8000),),
        resources=Resources(cpu="2", memory="4Gi", storage="5Gi"),
        probe=Probe(path="/health", port=49983),
        network=Network(mode="SANDBOX"),
        mounts=(
            ENVD,
            StorageMount(
                name="in", mount_path="/mnt/in", source=CosSource(bucket="in-125", path="/day"), readonly=True
            ),
            StorageMount(name="share", mount_path="/mnt/share", source=CfsSource(file_system_id="cfs-1")),
        ),
        tags={"team": "data"},
        role_arn=ROLE,
        description="all of it",
        default_timeout="30m",
    )
    tool = tasks.create_tool.fn(spec, config=ags_config)
    shown = raw(ags_config, tool)
    assert (tool.network_mode, tool.role_arn, tool.default_timeout) == ("SANDBOX", ROLE, 1800)
    assert [mount["Name"] for mount in shown["StorageMounts"]] == ["envd", "in", "share"]
    assert shown["CustomConfiguration"]["Probe"]["HttpGet"]["Path"] == "/health"
    assert tool.tags["team"] == "data"


def test_a_tool_is_made_once_and_found_from_then_on(ensure):
    first = ensure(env={"MODE": "fast"}, resources=Resources(cpu="2", memory="1Gi"), tags={"team": "data"})
    again = ensure(env={"MODE": "fast"}, resources=Resources(cpu="2", memory="1Gi"), tags={"team": "data"})
    assert (first.outcome, again.outcome, again.changed) == ("created", "found", ())
    assert first.id == again.id and first.status == "ACTIVE"


def test_what_may_be_updated_is_updated_in_place(ensure, ags_config):
    first = ensure(env={"MODE": "fast"}, tags={"team": "data"})
    again = ensure(env={"MODE": "slow"}, description="new", image="python:3.12", tags={"team": "ml"})
    assert (again.outcome, again.id) == ("updated", first.id)
    assert set(again.changed) == {"env", "image", "description", "tags"}
    custom = raw(ags_config, again)["CustomConfiguration"]
    assert custom["Env"] == [{"Name": "MODE", "Value": "slow"}] and custom["Image"] == "python:3.12"
    assert again.tags["team"] == "ml" and again.description == "new"
    third = ensure(env={"MODE": "slow"}, description="new", image="python:3.12", tags={"team": "ml"})
    assert third.outcome == "found"


def test_what_may_not_be_updated_needs_another_tool(ensure, ags_config):
    first = ensure(default_timeout="5m")
    with pytest.raises(ConfigurationError, match=r"has to be replaced: default_timeout .*replace=True"):
        ensure(default_timeout="10m", replace=False)
    again = ensure(default_timeout="10m", mounts=(ENVD,), role_arn=ROLE)
    assert again.outcome == "replaced" and again.id != first.id
    assert set(again.changed) == {"default_timeout", "mounts", "role_arn"}
    assert [tool.id for tool in tasks.list_tools.fn(name="etl", config=ags_config)] == [again.id]


def test_a_tool_in_use_is_replaced_when_its_instances_have_ended(ensure, ags_config):
    first = ensure()
    instance = tasks.start_instance.fn(first, config=ags_config)
    with pytest.raises(ConflictError, match=rf"in use by {instance.id}.*drain=seconds"):
        ensure(persistent=True)
    timer = threading.Timer(0.5, tasks.stop_instance.fn, (instance,), {"config": ags_config})
    timer.start()
    assert ensure(persistent=True, drain=30).outcome == "replaced"
    timer.join()


def test_a_tool_of_another_owner_is_used_but_never_changed(ensure, ags_config):
    other = ags_config.control_plane().create_tool(ToolSpec(name="etl", image="python:3.11", tags={"theirs": "yes"}))
    found = ensure()
    assert (found.outcome, found.id) == ("found", other)
    with pytest.raises(ConfigurationError, match=r"differs from the spec in image, and was not created by ags_flows"):
        ensure(image="python:3.12")
    assert raw(ags_config, found)["Tags"] == [{"Key": "theirs", "Value": "yes"}]


def test_a_change_by_hand_is_undone_and_tags_of_others_stay(ensure, ags_config):
    tool = ensure(env={"MODE": "fast"})
    tasks.update_tool.fn(tool, custom=CustomConfiguration(image="python:3.9"), config=ags_config)
    tasks.update_tool.fn(tool, tags={"seen": "yes"}, config=ags_config)
    again = ensure(env={"MODE": "fast"})
    assert (again.outcome, again.id) == ("updated", tool.id)
    custom = raw(ags_config, again)["CustomConfiguration"]
    assert (custom["Image"], custom["Env"]) == ("python:3.11", [{"Name": "MODE", "Value": "fast"}])
    assert again.tags["seen"] == "yes"
    assert ensure(env={"MODE": "fast"}).outcome == "found"


def test_a_failed_tool_is_created_again(ensure):
    with pytest.raises(ToolFailedError):
        ensure(image="nowhere.invalid/etl:1")
    assert ensure().outcome == "replaced"


def test_tools_are_listed_over_all_pages_by_name_type_status_and_tag(ags_config):
    control = ags_config.control_plane()
    for number in range(120):
        kind = {"type": "browser"} if number % 40 == 0 else {"image": "python:3.11"}
        control.create_tool(ToolSpec(name=f"t-{number}", tags={"kind": str(number % 2)}, **kind))
    listed = tasks.list_tools.fn(config=ags_config)
    assert len(listed) == 120 + 2
    assert len(tasks.list_tools.fn(type="browser", config=ags_config)) == 3
    assert len(tasks.list_tools.fn(tags={"kind": "1"}, status="ACTIVE", config=ags_config)) == 60
    assert [tool.name for tool in tasks.list_tools.fn(name="t-7", config=ags_config)] == ["t-7"]
    assert len(tasks.list_tools.fn(limit=101, config=ags_config)) == 101


def test_a_tool_is_deleted_when_it_is_not_used_any_more(ensure, ags_config, ags_emulator):
    tool = ensure()
    instance = tasks.start_instance.fn(tool, config=ags_config)
    with pytest.raises(ConflictError, match="Stop its instances first"):
        tasks.delete_tool.fn(tool, config=ags_config)
    with pytest.raises(ConflictError, match=instance.id):
        tasks.delete_tool.fn(tool, drain=0.2, config=ags_config)
    tasks.stop_instance.fn(instance, config=ags_config)
    ags_emulator.transition("tool.delete", "seconds", 0.5)
    tasks.delete_tool.fn(tool, drain=30, config=ags_config)
    assert tasks.list_tools.fn(name="etl", config=ags_config) == []
    tasks.delete_tool.fn(tool, config=ags_config)


def test_cleanup_reports_a_tool_as_deleted_only_if_no_other_sandbox_uses_it(ags_config):
    tool = tasks.create_tool.fn(ToolSpec(name="shared", image="python:3.11"), config=ags_config)
    first, second = (tasks.start_instance.fn(tool, config=ags_config) for _ in range(2))
    report = tasks.cleanup.fn(first, tool, config=ags_config)
    assert (report.instance_id, report.tool_id, report.problems) == (first.id, None, ())
    assert tasks.cleanup.fn(second, tool, config=ags_config).tool_id == tool.id


def test_images_are_cached_ahead_of_their_use(ags_config):
    cached = tasks.precache_image.fn("registry.example.com/team/etl:v3", registry_type="custom", config=ags_config)
    assert cached.status == "SUCCESS" and cached.digest.startswith("sha256:")
    assert [one.id for one in tasks.list_precached_images.fn(cached.image, config=ags_config)] == [cached.id]
    with pytest.raises(ToolFailedError, match=r"no such host.*linux/amd64.*image_registry_type.*role_arn"):
        tasks.precache_image.fn("nowhere.invalid/etl:1", config=ags_config)
    tasks.delete_precached_image.fn(cached, config=ags_config)
    tasks.delete_precached_image.fn(cached, config=ags_config)
    assert tasks.list_precached_images.fn(cached.image, config=ags_config) == []


def test_the_registry_follows_the_host_of_the_image(ensure, ags_config):
    shown = raw(ags_config, ensure(image="ccr.ccs.tencentyun.com/team/etl:1"))
    assert shown["CustomConfiguration"]["ImageRegistryType"] == "personal"


# What goes wrong, and the messages.


def test_a_name_that_another_tool_has_is_an_error_with_three_hints(ags_config):
    tasks.create_tool.fn(ToolSpec(name="taken", image="python:3.11"), config=ags_config)
    with pytest.raises(ConflictError, match=r"named 'taken' already .*its name instead.*ensure_tool.*another name"):
        tasks.create_tool.fn(ToolSpec(name="taken", image="python:3.12"), config=ags_config)


def test_a_tool_that_was_created_from_an_equal_spec_is_found_and_a_failed_one_is_replaced(ags_config, ags_emulator):
    ags_emulator.transition("tool.create", "fail", reason="image not found", times=1)
    spec = ToolSpec(name="nightly", image="python:3.11")
    failed = tasks.create_tool.fn(spec, config=ags_config)
    with pytest.raises(ToolFailedError):
        tasks.wait_tool_active.fn(failed, config=ags_config)
    replaced = tasks.create_tool.fn(spec, config=ags_config)
    assert replaced.id != failed.id
    assert tasks.wait_tool_active.fn(replaced, config=ags_config).ready
    assert tasks.create_tool.fn(spec, config=ags_config).id == replaced.id


def test_a_tool_that_is_being_deleted_is_waited_for(ags_config, ags_emulator):
    ags_emulator.transition("tool.delete", "seconds", 2)
    spec = ToolSpec(name="nightly", image="python:3.11")
    first = tasks.create_tool.fn(spec, config=ags_config)
    tasks.wait_tool_active.fn(first, config=ags_config)
    tasks.delete_tool.fn(first, config=ags_config)
    assert tasks.create_tool.fn(spec, config=ags_config).id != first.id


def test_an_image_that_cannot_be_pulled_is_an_error_with_the_three_usual_causes(ags_config):
    tool = tasks.create_tool.fn(ToolSpec(name="typo", image="nowhere.invalid/etl:1"), config=ags_config)
    with pytest.raises(ToolFailedError, match=r"no such host.*linux/amd64.*image_registry_type.*role_arn"):
        tasks.wait_tool_active.fn(tool, config=ags_config)


@pytest.mark.parametrize("image", ["team.tencentcloudcr.com/ns/etl:1", "ccr.ccs.tencentyun.com/ns/etl:1"])
def test_the_wrong_registry_type_is_refused_before_any_request(image):
    wrong = "personal" if "tencentcloudcr" in image else "enterprise"
    with pytest.raises(ConfigurationError, match=rf"image_registry_type='{wrong}' does not fit image '{image}'"):
        ToolSpec(name="etl", image=image, image_registry_type=wrong)


def test_a_missing_role_is_an_error_with_the_field_and_the_variable(ags_config):
    mount = StorageMount(name="in", mount_path="/mnt/in", source=CosSource(bucket="in-125"))
    with pytest.raises(InvalidRequestError, match=r"RoleArn.*role_arn \(or TENCENTCLOUD_ROLE_ARN\)"):
        tasks.create_tool.fn(ToolSpec(name="etl", image="python:3.11", mounts=(mount,)), config=ags_config)


def test_a_quota_of_tools_is_an_error_with_the_usage(ags_config, ags_emulator):
    ags_emulator.limits(quotas=True, tools=3)
    tasks.create_tool.fn(ToolSpec(name="third", image="python:3.11"), config=ags_config)
    with pytest.raises(QuotaExceededError, match=r"tools 3 of 3"):
        tasks.create_tool.fn(ToolSpec(name="fourth", image="python:3.11"), config=ags_config)
