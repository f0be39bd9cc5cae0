"""Every field of what is created reaches the wire, with names that the SDK's own request models know."""

import json
import warnings

import pytest
from tencentcloud.ags.v20250920 import models as sdk

from ags_flows import models
from ags_flows.errors import ConfigurationError
from ags_flows.models import (
    AgentBucketSource,
    CfsSource,
    Computer,
    CosSource,
    CustomConfiguration,
    Dns,
    ImageSource,
    Logs,
    MountOption,
    Network,
    Port,
    Probe,
    Resources,
    Security,
    StorageMount,
    ToolSpec,
    VolumeSource,
    VolumeTemplateSource,
)

CONTAINER = {
    "image": "registry.example.com/team/etl:3",
    "image_registry_type": "personal",
    "command": ("/bin/etl", "--serve"),
    "args": ("--verbose", "--level=9"),
    "env": {"STAGE": "prod", "EMPTY": ""},
    "ports": (Port(name="http", port=8081, protocol="TCP"), Port(name="dns", port=5353, protocol="UDP")),
    "resources": Resources(cpu="3", memory="7Gi", storage="20Gi"),
    "probe": Probe(
        path="/ready",
        port=8082,
        scheme="HTTPS",
        ready_timeout_ms=31_001,
        timeout_ms=1_002,
        period_ms=103,
        success_threshold=4,
        failure_threshold=105,
    ),
    "dns": Dns(servers=("10.1.2.3",), searches=("corp.example",), options=("ndots:2",)),
    "security": Security(privileged=False, add_capabilities=("SYS_PTRACE",), drop_capabilities=("NET_RAW",)),
}

MOUNTS = (
    StorageMount(
        name="m-image",
        mount_path="/mnt/image",
        source=ImageSource(image="tools/envd:1.2", image_registry_type="system", subpath="/usr/bin"),
        readonly=True,
    ),
    StorageMount(
        name="m-cos",
        mount_path="/mnt/cos",
        source=CosSource(bucket="bucket-125", path="/data/in", endpoint="cos.ap-guangzhou.myqcloud.com"),
    ),
    StorageMount(name="m-cfs", mount_path="/mnt/cfs", source=CfsSource(file_system_id="cfs-1234", path="/share")),
    StorageMount(
        name="m-bucket",
        mount_path="/mnt/bucket",
        source=AgentBucketSource(library_id="lib-1", space_id="space-2", access_domain="agent.example.com"),
    ),
    StorageMount(name="m-volume", mount_path="/mnt/volume", source=VolumeSource(volume_id="vol-12345678")),
    StorageMount(name="m-named", mount_path="/mnt/named", source=VolumeSource(name="shared-volume")),
    StorageMount(
        name="m-template",
        mount_path="/mnt/template",
        source=VolumeTemplateSource(name="scratch", reuse_key="${metadata.user}"),
    ),
)

TOOL = {
    **CONTAINER,
    "name": "every-field",
    "type": "custom",
    "computer": Computer(osworld_version="osworld2", waa_image_id="img-77"),
    "logs": Logs(files=("/logs/out.log", "/logs/err.log"), topic_id="topic-88"),
    "network": Network(mode="VPC", subnet_ids=("subnet-a", "subnet-b"), security_group_ids=("sg-c",)),
    "mounts": MOUNTS,
    "tags": {"team": "data", "cost-centre": "4711"},
    "role_arn": "qcs::cam::uin/100000000001:roleName/ags",
    "description": "all of it",
    "default_timeout": "1h30m",
    "persistent": False,
}


def leaves(value):
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def words(value):
    """Every value of ours that must be somewhere in the request, and every name that a user chose."""
    dumped = value.model_dump(mode="json")
    names = [name for mapping in ("env", "tags") for name in dumped.get(mapping, {})]
    kinds = {mount.source.kind for mount in getattr(value, "mounts", ())}
    return {leaf for leaf in leaves(dumped) + names if leaf not in (None, "") and leaf not in kinds}


def understood(request, parameters):
    """What the SDK's request model makes of the parameters; it warns of fields that it does not know."""
    model = request()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.from_json_string(json.dumps(parameters))
    return set_fields(json.loads(model.to_json_string()))


def set_fields(value):
    if isinstance(value, dict):
        return {name: set_fields(item) for name, item in value.items() if item is not None}
    return [set_fields(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def sent(stub, stubbed):
    def send(call):
        stub.answer = lambda action, parameters: {
            "ToolId": "sdt-12345678",
            "Instance": {"InstanceId": "i-1", "ToolId": "sdt-12345678", "Status": "STARTING"},
            "Snapshot": {"SnapshotId": "snapshot-1"},
        }
        call(stubbed)
        action, parameters = stub.requests.pop()
        assert understood(getattr(sdk, f"{action}Request"), parameters) == parameters
        return parameters

    return send


def test_every_field_of_a_tool_reaches_the_wire(sent):
    assert set(TOOL) == set(ToolSpec.model_fields), "a new field needs a value here"
    tool = ToolSpec(**TOOL)
    parameters = sent(lambda control: control.create_tool(tool, client_token="token-1"))
    found = set(leaves(parameters))
    # Durations are sent in seconds; whether it is persistent only when it is.
    assert words(tool) - {"1h30m"} <= found and {"5400s", "token-1"} <= found
    assert {f"_{name}" for name in parameters} | {"_Persistent"} == set(vars(sdk.CreateSandboxToolRequest()))


def test_every_field_of_an_instance_reaches_the_wire(sent):
    assert set(CONTAINER) == set(CustomConfiguration.model_fields), "a new field needs a value here"
    custom = CustomConfiguration(**CONTAINER)
    option = MountOption(name="m-cos", mount_path="/home/in", subpath="2026/11", readonly=True)
    loose = MountOption(name="m-cfs", readonly=False)
    parameters = sent(
        lambda control: control.start_instance(
            tool="sdt-12345678",
            timeout=90,
            metadata={"run": "r-1"},
            client_token="token-1",
            custom=custom,
            mount_options=[option, loose],
            auth_mode="PUBLIC",
            snapshot_id="snapshot-1",
            source_instance_id="i-0",
        )
    )
    assert words(custom) | words(option) <= set(leaves(parameters))
    assert {f"_{name}" for name in parameters} | {"_ToolName"} == set(vars(sdk.StartSandboxInstanceRequest()))
    assert {f"_{name}" for name in parameters["CustomConfiguration"]} == set(vars(sdk.CustomConfiguration()))
    assert parameters["Metadata"] == [{"Name": "run", "Value": "r-1"}] and parameters["Timeout"] == "90s"
    assert parameters["MountOptions"][1] == {"Name": "m-cfs", "ReadOnly": False}


def test_every_value_that_describes_a_tool_is_tried_here():
    files = ("specs", "containers", "mounts")
    described = {
        value
        for value in vars(models).values()
        if isinstance(value, type) and value.__module__ in [f"ags_flows.models.{name}" for name in files]
    }
    used = set()

    def visit(value):
        if isinstance(value, models.Value):
            used.add(type(value))
            for name in type(value).model_fields:
                visit(getattr(value, name))
        elif isinstance(value, tuple):
            for item in value:
                visit(item)

    visit(ToolSpec(**TOOL))
    visit(CustomConfiguration(**CONTAINER))
    assert {value.__name__ for value in described - used} == {"MountOption"}


def test_every_field_of_the_parts_is_set_to_something_else_than_its_default():
    parts = [value for value in TOOL.values() if isinstance(value, models.Value)]
    for value in [*parts, CONTAINER["ports"][1], *(mount.source for mount in MOUNTS[:4])]:
        for name, field in type(value).model_fields.items():
            assert name == "kind" or getattr(value, name) != field.default, (value, name)


def test_a_plain_custom_tool_has_an_enterprise_image_the_public_network_and_no_probe(sent):
    parameters = sent(lambda control: control.create_tool(ToolSpec(name="plain", image="python:3.11")))
    assert parameters == {
        "ToolName": "plain",
        "ToolType": "custom",
        "NetworkConfiguration": {"NetworkMode": "PUBLIC"},
        "CustomConfiguration": {
            "Image": "python:3.11",
            "ImageRegistryType": "enterprise",
            "Resources": {"CPU": "1", "Memory": "2Gi"},
        },
    }


def test_a_persistent_tool_of_another_type_sends_nothing_of_a_container(sent):
    parameters = sent(lambda control: control.create_tool(ToolSpec(name="ci", type="browser", persistent=True)))
    assert parameters == {
        "ToolName": "ci",
        "ToolType": "browser",
        "NetworkConfiguration": {"NetworkMode": "PUBLIC"},
        "Persistent": True,
    }


def test_resources_are_sent_for_every_type_also_when_they_are_the_defaults(sent):
    spec = ToolSpec(name="ci", type="code-interpreter", resources=Resources())
    parameters = sent(lambda control: control.create_tool(spec))
    assert parameters["CustomConfiguration"] == {"Resources": {"CPU": "1", "Memory": "2Gi"}}


def test_everything_that_an_update_takes_reaches_the_wire(sent):
    parameters = sent(
        lambda control: control.update_tool(
            "sdt-12345678",
            description="new",
            tags={"a": "1"},
            network=Network(mode="SANDBOX"),
            custom=CustomConfiguration(**CONTAINER),
            computer=Computer(osworld_version="osworld2"),
        )
    )
    assert {f"_{name}" for name in parameters} == set(vars(sdk.UpdateSandboxToolRequest()))


def test_the_other_requests_are_known_to_the_sdk_too(sent):
    for call in (
        lambda control: control.update_instance("i-1", timeout="5m", metadata={"a": "1"}),
        lambda control: control.pause_instance("i-1", memory=False),
        lambda control: control.resume_instance("i-1", timeout=60),
        lambda control: control.stop_instance("i-1"),
        lambda control: control.delete_tool("sdt-12345678"),
        lambda control: control.create_snapshot("i-1", name="s", memory=True, tags={"a": "b"}, client_token="c"),
        lambda control: control.delete_snapshot("snapshot-1"),
        lambda control: control.list_tools(ids=["sdt-1"], name="n", type="custom", status="ACTIVE", tags={"a": "b"}),
        lambda control: control.list_instances(ids=["i-1"], tool="sdt-1", status="RUNNING"),
        lambda control: control.list_snapshots(),
    ):
        sent(call)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.create_tool(ToolSpec(name="no-image")), "image"),
        (lambda c: c.get_tool("no such name"), "no such name"),
        (lambda c: c.get_tool(""), "''"),
        (lambda c: c.start_instance(), "tool"),
        (lambda c: c.start_instance(tool="x" * 51), "x" * 51),
        (lambda c: c.start_instance(tool="base", timeout="29s"), "29s"),
        (lambda c: c.start_instance(tool="base", timeout="soon"), "soon"),
        (lambda c: c.start_instance(tool="base", auth_mode="maybe"), "auth_mode"),
        (lambda c: c.start_instance(tool="base", client_token="x" * 65), "client_token"),
        (lambda c: c.start_instance(tool="base", metadata={"": "x"}), "metadata"),
        (lambda c: c.start_instance(tool="base", metadata={"a": 1}), "metadata"),
        (lambda c: c.create_tool(ToolSpec(name="a", image="i"), client_token=""), "client_token"),
        (lambda c: c.get_instance(""), "instance"),
        (lambda c: c.stop_instance("../etc"), "../etc"),
        (lambda c: c.update_instance("i-1"), "update"),
        (lambda c: c.update_instance("i-1", timeout=86_401), "86401"),
        (lambda c: c.resume_instance("i-1", timeout="25h"), "25h"),
        (lambda c: c.list_tools(limit=-1), "limit"),
        (lambda c: c.call("DescribeSandboxToolList", {"Limit": object()}), "JSON"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name_and_nothing_is_sent(stub, stubbed, call, field):
    with pytest.raises(ConfigurationError, match=field.replace("(", ".")):
        call(stubbed)
    assert stub.requests == []
