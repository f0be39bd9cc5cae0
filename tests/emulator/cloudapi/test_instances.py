"""Instances through the real SDK: started, listed, kept alive, paused, copied, ended."""

import threading
import time

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

PUBLIC = {"NetworkMode": "PUBLIC"}


def refusal(call, *args, **fields):
    with pytest.raises(TencentCloudSDKException) as caught:
        call(*args, **fields)
    return caught.value.code


def start(cloud, **fields):
    if not {"ToolId", "SnapshotId", "SourceInstanceId"} & set(fields):
        fields.setdefault("ToolName", "base")
    return cloud("StartSandboxInstance", **fields)["Instance"]


def shown(cloud, instance_id):
    return cloud("DescribeSandboxInstanceList", InstanceIds=[instance_id])["InstanceSet"][0]


def wait(cloud, instance_id, status, seconds=10):
    deadline = time.monotonic() + seconds
    while (found := shown(cloud, instance_id))["Status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def running(cloud, **fields):
    instance_id = start(cloud, **fields)["InstanceId"]
    wait(cloud, instance_id, "RUNNING")
    return instance_id


def live(cloud):
    filters = [{"Name": "Status", "Values": ["STARTING", "RUNNING", "PAUSED", "STOPPING"]}]
    return cloud("DescribeSandboxInstanceList", Filters=filters)["TotalCount"]


def test_an_instance_starts_runs_and_is_stopped_by_hand(cloud):
    metadata = [{"Name": "owner", "Value": "flow-1"}]
    begun = start(cloud, Timeout="10m", Metadata=metadata)
    assert begun["Status"] == "STARTING"
    found = wait(cloud, begun["InstanceId"], "RUNNING")
    assert found["TimeoutSeconds"] == 600 and found["ExpiresAt"].endswith("Z")
    assert found["Metadata"] == metadata and found["AuthMode"] == "DEFAULT" and found["ToolName"] == "base"
    cloud("StopSandboxInstance", InstanceId=begun["InstanceId"])
    found = wait(cloud, begun["InstanceId"], "STOPPED")
    assert found["StopReason"] == "manual"
    assert (
        refusal(cloud, "StopSandboxInstance", InstanceId=begun["InstanceId"]) == "UnsupportedOperation.SandboxInstance"
    )


def test_an_immediate_start_is_over_when_its_response_comes(cloud, emulator):
    emulator.transition("instance.start", "at_once")
    assert start(cloud)["Status"] == "RUNNING"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"ToolName": "nothing"}, "ResourceNotFound.SandboxTool"),
        ({"ToolId": "sdt-nothing"}, "ResourceNotFound.SandboxTool"),
        ({"SnapshotId": "snapshot-1"}, "ResourceNotFound"),
        ({"SourceInstanceId": "nothing"}, "ResourceNotFound.SandboxInstance"),
        ({"Timeout": "29s"}, "InvalidParameterValue.Timeout"),
        ({"Timeout": "24h1s"}, "InvalidParameterValue.Timeout"),
        ({"Timeout": "soon"}, "InvalidParameterValue.Timeout"),
        ({"AuthMode": "MAYBE"}, "InvalidParameterValue"),
        ({"MountOptions": [{"Name": "none"}]}, "ResourceNotFound.StorageMount"),
        ({"Metadata": [{"Name": "", "Value": "x"}]}, "InvalidParameterValue"),
        ({"CustomConfiguration": {"Image": ""}}, "InvalidParameterValue.Image"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
    ],
)
def test_what_breaks_a_rule_starts_nothing(cloud, fields, code):
    assert refusal(start, cloud, **fields) == code
    assert live(cloud) == 0


def test_unknown_instances_are_not_found_by_actions_and_left_out_of_lists(cloud):
    for action in (
        "StopSandboxInstance",
        "PauseSandboxInstance",
        "UpdateSandboxInstance",
        "AcquireSandboxInstanceToken",
    ):
        assert refusal(cloud, action, InstanceId="nothing") == "ResourceNotFound.SandboxInstance"
    assert cloud("DescribeSandboxInstanceList", InstanceIds=["nothing"])["InstanceSet"] == []
    assert cloud("DescribeSandboxInstances", InstanceIds=["nothing"])["InstanceSet"] == []


def test_a_repeated_client_token_makes_no_second_instance(cloud):
    first = start(cloud, ClientToken="t")
    assert start(cloud, ClientToken="t")["InstanceId"] == first["InstanceId"]
    assert refusal(start, cloud, ClientToken="t", Timeout="1h") == "FailedOperation.DuplicateRequest"
    assert live(cloud) == 1
    cloud("StopSandboxInstance", InstanceId=first["InstanceId"])
    wait(cloud, first["InstanceId"], "STOPPED")
    assert start(cloud, ClientToken="t")["Status"] == "STOPPED"


def test_an_update_restarts_the_countdown_which_ends_the_instance(cloud, emulator):
    instance_id = running(cloud, Timeout="1m")
    emulator.advance(50)
    cloud("UpdateSandboxInstance", InstanceId=instance_id, Timeout="2m")
    emulator.advance(110)
    assert shown(cloud, instance_id)["Status"] == "RUNNING"
    emulator.advance(11)
    assert wait(cloud, instance_id, "STOPPED")["StopReason"] == "timeout"
    assert refusal(cloud, "UpdateSandboxInstance", InstanceId=instance_id, Timeout="2m") == (
        "UnsupportedOperation.SandboxInstance"
    )


def test_metadata_is_added_to(cloud):
    instance_id = running(cloud, Metadata=[{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "2"}])
    cloud("UpdateSandboxInstance", InstanceId=instance_id, Metadata=[{"Name": "b", "Value": "3"}])
    assert shown(cloud, instance_id)["Metadata"] == [{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "3"}]


def test_a_persistent_instance_has_no_timeout(cloud, emulator):
    tool = {"ToolName": "forever", "ToolType": "browser", "NetworkConfiguration": PUBLIC, "Persistent": True}
    emulator.transition("tool.create", "at_once")
    cloud("CreateSandboxTool", **tool)
    instance_id = running(cloud, ToolName="forever")
    emulator.advance(48 * 3600)
    found = shown(cloud, instance_id)
    assert (found["Status"], found["Persistent"], found["ExpiresAt"]) == ("RUNNING", True, None)
    assert refusal(cloud, "UpdateSandboxInstance", InstanceId=instance_id, Timeout="5m") == "UnsupportedOperation"


def test_a_tool_in_use_cannot_be_deleted(cloud, emulator):
    emulator.transition("tool.create", "at_once")
    tool_id = cloud("CreateSandboxTool", ToolName="used", ToolType="browser", NetworkConfiguration=PUBLIC)["ToolId"]
    instance_id = running(cloud, ToolId=tool_id)
    assert refusal(cloud, "DeleteSandboxTool", ToolId=tool_id) == "ResourceInUse.SandboxTool"
    cloud("StopSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "STOPPED")
    cloud("DeleteSandboxTool", ToolId=tool_id)


def test_a_paused_instance_keeps_and_its_clock_stands_still(cloud, emulator):
    instance_id = running(cloud, Timeout="1m")
    assert cloud("PauseSandboxInstance", InstanceId=instance_id)["InstanceStatus"] in ("PAUSING", "PAUSED")
    wait(cloud, instance_id, "PAUSED")
    assert refusal(cloud, "PauseSandboxInstance", InstanceId=instance_id) == "UnsupportedOperation.SandboxInstance"
    emulator.advance(3600)
    assert shown(cloud, instance_id)["Status"] == "PAUSED"
    assert refusal(cloud, "ResumeSandboxInstance", InstanceId=instance_id, Timeout="1s") == (
        "InvalidParameterValue.Timeout"
    )
    cloud("ResumeSandboxInstance", InstanceId=instance_id, Timeout="40s")
    wait(cloud, instance_id, "RUNNING")
    assert refusal(cloud, "ResumeSandboxInstance", InstanceId=instance_id) == "UnsupportedOperation.SandboxInstance"
    emulator.advance(41)
    assert wait(cloud, instance_id, "STOPPED")["StopReason"] == "timeout"


def test_stopped_instances_stay_listed_for_a_while(cloud, emulator):
    instance_id = running(cloud)
    cloud("StopSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "STOPPED")
    emulator.advance(3500)
    assert shown(cloud, instance_id)["Status"] == "STOPPED"
    emulator.advance(200)
    assert cloud("DescribeSandboxInstanceList", InstanceIds=[instance_id])["TotalCount"] == 0


def test_tokens_belong_to_a_live_instance(cloud):
    instance_id = running(cloud)
    first = cloud("AcquireSandboxInstanceToken", InstanceId=instance_id)
    second = cloud("AcquireSandboxInstanceToken", InstanceId=instance_id)
    assert first["Token"].startswith("sit_") and first["Token"] != second["Token"]
    assert first["TrafficToken"] == second["TrafficToken"]
    cloud("StopSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "STOPPED")
    assert refusal(cloud, "AcquireSandboxInstanceToken", InstanceId=instance_id) == (
        "UnsupportedOperation.SandboxInstance"
    )


def test_a_token_needs_no_region(cloud, cloud_with, emulator):
    instance_id = running(cloud_with(region="ap-shanghai"))
    assert cloud_with(region="")("AcquireSandboxInstanceToken", InstanceId=instance_id)["Token"]


def test_lists_are_filtered_and_paged_both_ways(cloud, emulator):
    emulator.transition("instance.start", "never")
    ids = [start(cloud)["InstanceId"] for _ in range(7)]
    page = cloud("DescribeSandboxInstanceList", MaxResults=3, NeedTotalCount=True)
    seen = [each["InstanceId"] for each in page["InstanceSet"]]
    assert page["TotalCount"] == 7
    cloud("StopSandboxInstance", InstanceId=ids[-1])
    late = start(cloud)["InstanceId"]
    while page["NextToken"]:
        page = cloud("DescribeSandboxInstanceList", MaxResults=3, NeedTotalCount=True, NextToken=page["NextToken"])
        assert page["TotalCount"] == 7
        seen += [each["InstanceId"] for each in page["InstanceSet"]]
    assert seen == ids[::-1] and late not in seen
    assert cloud("DescribeSandboxInstanceList", MaxResults=3)["TotalCount"] == 0
    offset = cloud("DescribeSandboxInstanceList", Offset=6, Limit=100)
    assert (len(offset["InstanceSet"]), offset["TotalCount"]) == (2, 8)
    assert cloud("DescribeSandboxInstanceList", Limit=2, NeedTotalCount=False)["TotalCount"] == 8
    starting = [{"Name": "Status", "Values": ["STARTING"]}, {"Name": "ToolName", "Values": ["base"]}]
    assert cloud("DescribeSandboxInstanceList", Filters=starting)["TotalCount"] == 7
    for wrong, code in (
        ({"Offset": 10001}, "InvalidParameterValue.OffsetTooLarge"),
        ({"Offset": -1}, "InvalidParameter.Offset"),
        ({"MaxResults": 101}, "InvalidParameter"),
        ({"NextToken": "bm9uc2Vuc2U="}, "InvalidParameter"),
        ({"NextToken": "x", "Offset": 1}, "InvalidParameter"),
        ({"InstanceIds": ["a"] * 101}, "InvalidParameterValue.InstanceIds"),
        ({"Filters": [{"Name": "Metadata", "Values": ["a"]}]}, "InvalidParameter.Filters"),
        ({"Filters": [{"Name": "Status", "Values": ["running"]}]}, "InvalidParameter.Filters"),
        ({"Filters": [{"Name": "Status"}]}, "InvalidParameter.Filters"),
        ({"Filters": [{"Name": "Status", "Values": ["UNHEALTHY", "RUNNING"]}]}, "InvalidParameter.Filters"),
    ):
        assert refusal(cloud, "DescribeSandboxInstanceList", **wrong) == code
    token = cloud("DescribeSandboxInstanceList", MaxResults=3)["NextToken"]
    assert refusal(cloud, "DescribeSandboxInstanceList", MaxResults=4, NextToken=token) == "InvalidParameter"
    emulator.advance(25 * 3600)
    assert refusal(cloud, "DescribeSandboxInstanceList", MaxResults=3, NextToken=token) == "InvalidParameter"


def test_the_quota_of_running_instances_holds_when_that_is_switched_on(cloud, emulator):
    emulator.limits(quotas=True, instances=2)
    first = running(cloud)
    running(cloud)
    assert refusal(start, cloud) == "LimitExceeded.SandboxInstance"
    overview = cloud("DescribeQuotaOverview")["AccountQuotaOverview"]
    assert overview["Quota"]["SandboxInstances"] == overview["Usage"]["SandboxInstances"] == 2
    cloud("PauseSandboxInstance", InstanceId=first)
    wait(cloud, first, "PAUSED")
    running(cloud)
    assert cloud("DescribeQuotaOverview")["AccountQuotaOverview"]["Usage"]["PausedInstances"] == 1
    assert refusal(cloud, "ResumeSandboxInstance", InstanceId=first) == "LimitExceeded.SandboxInstance"


def test_snapshots_are_made_listed_started_from_and_deleted(cloud):
    source = running(cloud)
    fields = {"InstanceId": source, "SnapshotName": "before", "ClientToken": "s", "Tags": [{"Key": "a", "Value": "1"}]}
    made = cloud("CreateSandboxSnapshot", **fields)["Snapshot"]
    assert made["Status"] == "ACTIVE" and made["SnapshotId"].startswith("snapshot-")
    assert cloud("CreateSandboxSnapshot", **fields)["Snapshot"]["SnapshotId"] == made["SnapshotId"]
    second = cloud("CreateSandboxSnapshot", InstanceId=source)["Snapshot"]
    page = cloud("DescribeSandboxSnapshotList", MaxResults=1)
    assert [each["SnapshotId"] for each in page["SnapshotSet"]] == [second["SnapshotId"]] and page["TotalCount"] == 2
    page = cloud("DescribeSandboxSnapshotList", MaxResults=1, NextToken=page["NextToken"])
    assert page["SnapshotSet"][0]["SourceInstanceId"] == source and not page["NextToken"]
    assert start(cloud, SnapshotId=made["SnapshotId"])["ToolName"] == "base"
    cloud("DeleteSandboxSnapshot", SnapshotId=made["SnapshotId"])
    assert refusal(cloud, "DeleteSandboxSnapshot", SnapshotId=made["SnapshotId"]) == "ResourceNotFound"
    assert refusal(cloud, "CreateSandboxSnapshot", InstanceId="nothing") == "ResourceNotFound.SandboxInstance"


def test_a_running_instance_is_cloned(cloud):
    source = running(cloud)
    clone = start(cloud, SourceInstanceId=source)
    assert wait(cloud, clone["InstanceId"], "RUNNING")["InstanceId"] != source
    assert shown(cloud, source)["Status"] == "RUNNING"


def test_starts_that_hang_or_fail_have_that_status(cloud, emulator):
    emulator.transition("instance.start", "never")
    stuck = start(cloud)["InstanceId"]
    time.sleep(0.1)
    assert shown(cloud, stuck)["Status"] == "STARTING"
    cloud("StopSandboxInstance", InstanceId=stuck)
    wait(cloud, stuck, "STOPPED")
    emulator.transition("instance.start", "fail", reason="no host", times=1)
    failed = start(cloud)["InstanceId"]
    assert wait(cloud, failed, "STARTING_FAILED")["StopReason"] == "error"
    running(cloud)


def test_stops_pauses_and_resumes_that_fail(cloud, emulator):
    instance_id = running(cloud)
    emulator.transition("instance.pause", "fail", times=1)
    cloud("PauseSandboxInstance", InstanceId=instance_id)
    assert wait(cloud, instance_id, "RUNNING")
    emulator.transition("instance.stop", "fail", times=1)
    cloud("StopSandboxInstance", InstanceId=instance_id)
    assert wait(cloud, instance_id, "STOP_FAILED")["StopReason"] == "error"
    cloud("StopSandboxInstance", InstanceId=instance_id)
    wait(cloud, instance_id, "STOPPED")
    other = running(cloud)
    cloud("PauseSandboxInstance", InstanceId=other)
    wait(cloud, other, "PAUSED")
    emulator.transition("instance.resume", "fail", times=1)
    cloud("ResumeSandboxInstance", InstanceId=other)
    wait(cloud, other, "RESUME_FAILED")


def test_a_sandbox_that_dies_makes_its_instance_fail(cloud, emulator):
    instance_id = running(cloud)
    emulator.kill_sandbox(instance_id)
    found = shown(cloud, instance_id)
    assert (found["Status"], found["StopReason"]) == ("FAILED", "error")


def test_many_concurrent_starts_and_stops_leave_nothing(cloud_with, emulator):
    def work(cloud):
        for _ in range(5):
            instance_id = start(cloud)["InstanceId"]
            cloud("StopSandboxInstance", InstanceId=instance_id)

    threads = [threading.Thread(target=work, args=(cloud_with(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cloud = cloud_with()
    deadline = time.monotonic() + 20
    while live(cloud):
        assert time.monotonic() < deadline
        time.sleep(0.05)
