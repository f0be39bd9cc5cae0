"""Tools through the real SDK."""

import time

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

PUBLIC = {"NetworkMode": "PUBLIC"}
IMAGE = {"Image": "python:3.11", "ImageRegistryType": "personal"}
ROLE = "qcs::cam::uin/100000000001:roleName/sandbox"


def new_tool(cloud, name="tool", **more):
    fields = {"ToolType": "custom", "NetworkConfiguration": PUBLIC, "CustomConfiguration": IMAGE, **more}
    return cloud("CreateSandboxTool", ToolName=name, **fields)["ToolId"]


def tool(cloud, tool_id):
    return cloud("DescribeSandboxToolList", ToolIds=[tool_id])["SandboxToolSet"][0]


def wait_status(cloud, tool_id, status, seconds=5):
    deadline = time.monotonic() + seconds
    while (found := tool(cloud, tool_id))["Status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def refusal(call, *args, **fields):
    with pytest.raises(TencentCloudSDKException) as caught:
        call(*args, **fields)
    assert caught.value.requestId
    return caught.value.code


def test_a_tool_is_created_asynchronously_and_becomes_active(cloud):
    tool_id = new_tool(cloud, Description="for tests", Tags=[{"Key": "team", "Value": "data"}], DefaultTimeout="1h30m")
    assert tool_id.startswith("sdt-")
    assert tool(cloud, tool_id)["Status"] == "CREATING"
    found = wait_status(cloud, tool_id, "ACTIVE")
    assert found["ToolName"] == "tool" and found["Description"] == "for tests"
    assert found["DefaultTimeoutSeconds"] == 5400
    assert found["Tags"] == [{"Key": "team", "Value": "data"}]
    assert found["CustomConfiguration"]["ImageDigest"].startswith("sha256:")


def test_quantities_come_back_in_their_canonical_form(cloud):
    custom = {**IMAGE, "Resources": {"CPU": "2", "Memory": "4Gi", "Storage": "5Gi"}}
    shown = tool(cloud, new_tool(cloud, CustomConfiguration=custom))["CustomConfiguration"]["Resources"]
    assert shown == {"CPU": "2000m", "Memory": "4096Mi", "Storage": "5Gi"}


def test_e2bs_tools_exist_from_the_start_in_every_region(cloud, cloud_with):
    for each in (cloud, cloud_with(region="ap-shanghai")):
        found = {tool["ToolName"]: tool["Status"] for tool in each("DescribeSandboxToolList")["SandboxToolSet"]}
        assert found == {"base": "ACTIVE", "code-interpreter-v1": "ACTIVE"}


def test_regions_are_separate_worlds(cloud, cloud_with):
    shanghai = cloud_with(region="ap-shanghai")
    tool_id = new_tool(cloud)
    assert shanghai("DescribeSandboxToolList", ToolIds=[tool_id])["TotalCount"] == 0
    assert new_tool(shanghai) != tool_id
    assert refusal(shanghai, "DeleteSandboxTool", ToolId=tool_id) == "ResourceNotFound.SandboxTool"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": ""}, "InvalidParameterValue.SandboxTool"),
        ({"name": "a" * 51}, "InvalidParameterValue.SandboxTool"),
        ({"name": "python-3.11"}, "InvalidParameterValue.SandboxTool"),
        ({"name": "werkzeug\n"}, "InvalidParameterValue.SandboxTool"),
        ({"ToolType": "magic"}, "InvalidParameterValue.ToolType"),
        ({"Description": "x" * 201}, "InvalidParameter.Description"),
        ({"DefaultTimeout": "25h"}, "InvalidParameterValue.Timeout"),
        ({"DefaultTimeout": "5 minutes"}, "InvalidParameterValue.Timeout"),
        ({"NetworkConfiguration": {"NetworkMode": "MOON"}}, "InvalidParameterValue"),
        ({"NetworkConfiguration": {"NetworkMode": "VPC"}}, "MissingParameter.VPCParameters"),
        (
            {
                "NetworkConfiguration": {
                    "NetworkMode": "VPC",
                    "VpcConfig": {"SubnetIds": ["net-1"], "SecurityGroupIds": ["sg-1"]},
                }
            },
            "InvalidParameterValue.SubnetId",
        ),
        ({"CustomConfiguration": {"Image": "", "ImageRegistryType": "personal"}}, "InvalidParameterValue.Image"),
        ({"CustomConfiguration": {"ImageRegistryType": "personal"}}, "InvalidParameterValue.Image"),
        ({"CustomConfiguration": {**IMAGE, "ImageRegistryType": "attic"}}, "InvalidParameterValue.ImageRegistry"),
        ({"CustomConfiguration": {**IMAGE, "Resources": {"Storage": "3Gi"}}}, "InvalidParameterValue"),
        ({"CustomConfiguration": {**IMAGE, "Resources": {"CPU": "many"}}}, "InvalidParameterValue"),
        ({"CustomConfiguration": {**IMAGE, "Resources": {"Memory": "4Q"}}}, "InvalidParameterValue"),
        ({"CustomConfiguration": {**IMAGE, "Ports": [{"Name": "a", "Port": 0}]}}, "InvalidParameterValue"),
        ({"CustomConfiguration": {**IMAGE, "Probe": {}}}, "MissingParameter"),
        ({"RoleArn": "root"}, "InvalidParameterValue.RoleArn"),
        ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}, "InvalidParameter.Tags"),
        ({"LogConfiguration": {"LogSources": {"Files": ["/var/log/x"]}}}, "InvalidParameterValue"),
        ({"LogConfiguration": {"CLSConfig": {"TopicId": "t"}}}, "MissingParameter.RoleArn"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_code_and_makes_nothing(cloud, fields, code):
    fields = dict(fields)
    name = fields.pop("name", "tool")
    assert refusal(new_tool, cloud, name, **fields) == code
    assert cloud("DescribeSandboxToolList")["TotalCount"] == 2


COS = {"Cos": {"Endpoint": "cos.example", "BucketName": "data-125", "BucketPath": "/in"}}


@pytest.mark.parametrize(
    ("mount", "role", "code"),
    [
        ({"Name": "in", "MountPath": "/data/in", "StorageSource": COS}, None, "MissingParameter.RoleArn"),
        (
            {
                "Name": "in",
                "MountPath": "/data/in",
                "StorageSource": {"Cos": {"BucketName": "data-125", "BucketPath": "in"}},
            },
            ROLE,
            "InvalidParameterValue.StorageMount",
        ),
        ({"Name": "in", "MountPath": "data", "StorageSource": COS}, ROLE, "InvalidParameterValue.StorageMount"),
        ({"Name": "in", "MountPath": "/../etc", "StorageSource": COS}, ROLE, "InvalidParameterValue.StorageMount"),
        ({"Name": "in", "MountPath": "/", "StorageSource": COS}, ROLE, "InvalidParameterValue.StorageMount"),
        ({"Name": "in", "MountPath": "/data/in", "StorageSource": {}}, ROLE, "InvalidParameterValue.StorageMount"),
        (
            {"Name": "in", "MountPath": "/data/in", "StorageSource": {"Image": {"Reference": "busybox"}}},
            ROLE,
            "InvalidParameterValue.StorageMount",
        ),
    ],
)
def test_storage_mounts_follow_their_rules(cloud, mount, role, code):
    more = {"RoleArn": role} if role else {}
    assert refusal(new_tool, cloud, StorageMounts=[mount], **more) == code


def test_names_are_unique(cloud):
    new_tool(cloud)
    assert refusal(new_tool, cloud) == "InvalidParameterValue.SandboxTool"


def test_a_repeated_client_token_makes_no_second_tool(cloud, emulator):
    first = new_tool(cloud, ClientToken="again")
    assert new_tool(cloud, ClientToken="again") == first
    assert refusal(new_tool, cloud, "other", ClientToken="again") == "FailedOperation.DuplicateRequest"
    emulator.repeat_client_tokens("refuse")
    assert refusal(new_tool, cloud, ClientToken="again") == "FailedOperation.DuplicateRequest"
    assert cloud("DescribeSandboxToolList", Filters=[{"Name": "ToolType", "Values": ["custom"]}])["TotalCount"] == 2


def test_what_can_be_changed_of_a_tool_is_changed(cloud):
    tool_id = new_tool(cloud, Tags=[{"Key": "a", "Value": "1"}])
    assert refusal(cloud, "UpdateSandboxTool", ToolId=tool_id, Description="x") == "ResourceUnavailable.SandboxTool"
    wait_status(cloud, tool_id, "ACTIVE")
    cloud(
        "UpdateSandboxTool", ToolId=tool_id, Description="new", Tags=[], NetworkConfiguration={"NetworkMode": "SANDBOX"}
    )
    found = tool(cloud, tool_id)
    assert (found["Description"], found["Tags"]) == ("new", [])
    assert found["NetworkConfiguration"]["NetworkMode"] == "SANDBOX"


def test_a_deleted_tool_is_gone_and_its_name_free(cloud):
    tool_id = new_tool(cloud)
    cloud("DeleteSandboxTool", ToolId=tool_id)
    assert cloud("DescribeSandboxToolList", ToolIds=[tool_id])["SandboxToolSet"] == []
    assert refusal(cloud, "DeleteSandboxTool", ToolId=tool_id) == "ResourceNotFound.SandboxTool"
    assert new_tool(cloud) != tool_id


def test_tools_are_filtered_and_paged(cloud):
    for index in range(25):
        new_tool(cloud, f"tool-{index}", Tags=[{"Key": "half", "Value": str(index % 2)}])
    page = cloud("DescribeSandboxToolList")
    assert (len(page["SandboxToolSet"]), page["TotalCount"]) == (20, 27)
    last = cloud("DescribeSandboxToolList", Offset=20, Limit=100)
    names = [each["ToolName"] for each in page["SandboxToolSet"] + last["SandboxToolSet"]]
    assert len(set(names)) == 27 and names[0] == "tool-24"
    filters = [{"Name": "Tag", "Values": ["half=1"]}, {"Name": "ToolName", "Values": ["tool-1", "tool-2", "tool-3"]}]
    found = cloud("DescribeSandboxToolList", Filters=filters)["SandboxToolSet"]
    assert [each["ToolName"] for each in found] == ["tool-3", "tool-1"]
    assert refusal(cloud, "DescribeSandboxToolList", Offset=10001) == "InvalidParameterValue.OffsetTooLarge"
    assert refusal(cloud, "DescribeSandboxToolList", Limit=101) == "InvalidParameter.Limit"
    assert refusal(cloud, "DescribeSandboxToolList", ToolIds=["sdt-1"] * 101) == "InvalidParameterValue.ToolIds"
    unknown = [{"Name": "Colour", "Values": ["red"]}]
    assert refusal(cloud, "DescribeSandboxToolList", Filters=unknown) == "InvalidParameter.Filters"


def test_an_image_that_cannot_be_pulled_makes_the_tool_fail_with_the_reason(cloud):
    tool_id = new_tool(cloud, CustomConfiguration={"Image": "registry.invalid/app:1", "ImageRegistryType": "personal"})
    found = wait_status(cloud, tool_id, "FAILED")
    assert "registry.invalid" in found["StatusReason"]
    assert refusal(cloud, "StartSandboxInstance", ToolId=tool_id) == "ResourceUnavailable.SandboxTool"


def test_steps_can_be_declared_to_take_reads_or_for_ever_or_to_fail(cloud, emulator):
    emulator.transition("tool.create", "reads", 3)
    tool_id = new_tool(cloud)
    statuses = [tool(cloud, tool_id)["Status"] for _ in range(3)]
    time.sleep(0.05)
    assert statuses == ["CREATING"] * 3 and tool(cloud, tool_id)["Status"] == "ACTIVE"

    emulator.transition("tool.create", "never")
    stuck = new_tool(cloud, "stuck")
    time.sleep(0.4)
    assert tool(cloud, stuck)["Status"] == "CREATING"
    emulator.reset_transitions()
    wait_status(cloud, stuck, "ACTIVE")

    emulator.transition("tool.create", "fail", reason="no capacity", times=1)
    assert wait_status(cloud, new_tool(cloud, "bad"), "FAILED")["StatusReason"] == "no capacity"
    wait_status(cloud, new_tool(cloud, "good"), "ACTIVE")

    emulator.transition("tool.create", "at_once")
    assert tool(cloud, new_tool(cloud, "quick"))["Status"] == "ACTIVE"
