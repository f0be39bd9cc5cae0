"""Responses of AGS in all forms that were seen or may come."""

from datetime import datetime, timezone

import pytest

from ags_flows.cloud.wire import instance_from_wire, time_from_wire, token_from_wire, tool_from_wire
from ags_flows.errors import InvalidRequestError, ServiceError, UnsupportedError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-08-25T17:00:27+08:00", (2026, 8, 25, 9, 0, 27, 0)),
        ("2025-09-12T09:00:03.094Z", (2025, 9, 12, 9, 0, 3, 94000)),
        ("2026-01-02T03:04:05.123456789Z", (2026, 1, 2, 3, 4, 5, 123456)),
        ("2026-01-02T03:04:05.1-0530", (2026, 1, 2, 8, 34, 5, 100000)),
        ("2026-01-02 03:04:05", (2026, 1, 2, 3, 4, 5, 0)),
        (" 2026-01-02t03:04:05z ", (2026, 1, 2, 3, 4, 5, 0)),
    ],
)
def test_times_are_read_in_every_form_and_are_utc(text, expected):
    assert time_from_wire(text) == datetime(*expected, tzinfo=timezone.utc)
    assert time_from_wire(text).utcoffset().total_seconds() == 0


@pytest.mark.parametrize("text", [None, "", "soon", "0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01"])
def test_an_invalid_time_counts_as_none(text):
    assert time_from_wire(text) is None


def test_known_fields_of_an_instance_of_a_later_version_are_read():
    instance = instance_from_wire(
        {
            "InstanceId": "wvhtuasdgdg2fh5accrhr5g62v26yt6epmd54kx6",
            "Status": "HIBERNATING",
            "StopReason": "TIMEOUT",
            "TimeoutSeconds": None,
            "ExpiresAt": None,
            "Metadata": [{"Key": "old", "Value": "form"}, {"Name": "new", "Value": None}],
            "CustomConfiguration": {"Resources": {"CPU": "2000m", "Memory": "1000Mi", "Storage": ""}},
            "Persistent": True,
            "Colour": "red",
        }
    )
    assert (instance.status, instance.stop_reason, instance.timeout) == ("HIBERNATING", "timeout", None)
    assert instance.metadata == {"old": "form", "new": ""} and instance.persistent
    assert instance_from_wire({"InstanceId": "i", "Metadata": None, "Status": None}).status == "UNKNOWN"


def test_a_tool_without_most_fields_and_with_system_tags_is_read():
    tool = tool_from_wire(
        {
            "ToolId": "sdt-1",
            "Status": "Failed",
            "StatusReason": "no such image",
            "Tags": [{"Key": "qcs:system", "Value": "x"}, {"Key": "a", "Value": "1"}, {"Key": None}],
            "DefaultTimeoutSeconds": "1h",
            "NetworkConfiguration": None,
            "CustomConfiguration": None,
        }
    )
    assert (tool.status, tool.status_reason, tool.tags, tool.default_timeout) == (
        "FAILED",
        "no such image",
        {"a": "1"},
        3600,
    )


def test_a_token_without_an_end_is_read():
    token = token_from_wire("i-1", {"Token": "sit_x", "TrafficToken": "", "ExpiresAt": None})
    assert token.expires_at is None and token.traffic_token is None


@pytest.mark.parametrize(
    "call",
    [
        lambda control: control.start_instance(tool="base"),
        lambda control: control.acquire_token("i-1"),
        lambda control: control.create_snapshot("i-1", name="s"),
    ],
)
def test_a_response_without_its_part_is_an_error_of_the_service(stub, stubbed, call):
    with pytest.raises(ServiceError, match=r"has no \w+\. \[RequestId req-1\]"):
        call(stubbed)


def test_lists_follow_the_token_to_the_last_page_whatever_comes_and_goes(stub, stubbed):
    def answer(action, parameters):
        start = int(parameters.get("NextToken", "0"))
        page = [{"InstanceId": f"i-{number}"} for number in range(start, min(start + 100, 250))]
        return {"InstanceSet": page, "NextToken": str(start + 100) if start < 200 else "", "TotalCount": 0}

    stub.answer = answer
    assert len(stubbed.list_instances()) == 250
    assert [parameters for _, parameters in stub.requests] == [
        {"MaxResults": 100},
        {"MaxResults": 100, "NextToken": "100"},
        {"MaxResults": 100, "NextToken": "200"},
    ]
    stub.requests.clear()
    assert len(stubbed.list_instances(limit=100)) == 100 and len(stub.requests) == 1


def test_more_than_a_hundred_ids_are_asked_for_in_parts(stub, stubbed):
    stub.answer = lambda action, parameters: {"InstanceSet": [{"InstanceId": i} for i in parameters["InstanceIds"]]}
    ids = [f"i-{number}" for number in range(230)]
    assert [instance.id for instance in stubbed.list_instances(ids=ids + ids[:5])] == ids
    assert [len(parameters["InstanceIds"]) for _, parameters in stub.requests] == [100, 100, 30]


def test_where_token_paging_is_not_known_offsets_are_used(stub, stubbed):
    def answer(action, parameters):
        if "MaxResults" in parameters:
            return {"Error": {"Code": "UnknownParameter", "Message": "`MaxResults` is not recognized."}}
        start = parameters["Offset"]
        return {"InstanceSet": [{"InstanceId": f"i-{number}"} for number in range(start, min(start + 100, 150))]}

    stub.answer = answer
    assert len(stubbed.list_instances()) == 150


def test_a_filter_that_is_refused_is_applied_here(stub, stubbed):
    def answer(action, parameters):
        if "Filters" in parameters:
            return {"Error": {"Code": "InvalidParameter.Filters", "Message": "ToolName is not supported."}}
        return {"SandboxToolSet": [{"ToolId": "sdt-1", "ToolName": "a"}, {"ToolId": "sdt-2", "ToolName": "b"}]}

    stub.answer = answer
    assert stubbed.get_tool("b").id == "sdt-2"


def test_a_filter_that_is_ignored_is_applied_here(stub, stubbed):
    tools = [{"ToolId": "sdt-1", "ToolName": "a"}, {"ToolId": "sdt-2", "ToolName": "ab"}]
    stub.answer = lambda action, parameters: {"SandboxToolSet": tools}
    assert stubbed.get_tool("a").id == "sdt-1"
    assert stubbed.list_tools(name="b") == []


def test_other_errors_of_a_list_are_passed_on(stub, stubbed):
    stub.answer = lambda action, parameters: {"Error": {"Code": "InvalidParameterValue.ToolIds", "Message": "bad"}}
    with pytest.raises(InvalidRequestError, match="ToolIds"):
        stubbed.list_tools(ids=["sdt-1"])


def test_more_tools_than_offsets_reach_are_not_cut_off_silently(stub, stubbed):
    page = [{"ToolId": f"sdt-{number}", "ToolName": "x"} for number in range(100)]
    stub.answer = lambda action, parameters: {"SandboxToolSet": page}
    with pytest.raises(UnsupportedError, match="Narrow"):
        stubbed.list_tools()
    assert max(parameters["Offset"] for _, parameters in stub.requests) == 10_000


@pytest.mark.parametrize("status", ["STOPPING", "STOPPED", "FAILED", "STARTING_FAILED"])
def test_a_second_stop_is_a_success_whatever_the_response(stub, stubbed, status):
    def answer(action, parameters):
        if action == "StopSandboxInstance":
            return {"Error": {"Code": "InvalidParameter", "Message": "instance is in STOPPED state"}}
        return {"InstanceSet": [{"InstanceId": "i-1", "Status": status}]}

    stub.answer = answer
    stubbed.stop_instance("i-1")


def test_a_stop_that_is_refused_while_the_instance_lives_is_an_error(stub, stubbed):
    def answer(action, parameters):
        if action == "StopSandboxInstance":
            return {"Error": {"Code": "UnsupportedOperation.SandboxInstance", "Message": "busy"}}
        return {"InstanceSet": [{"InstanceId": "i-1", "Status": "RUNNING"}]}

    stub.answer = answer
    with pytest.raises(Exception, match="busy"):
        stubbed.stop_instance("i-1")


def test_a_delete_that_is_refused_while_the_tool_is_being_deleted_is_a_success(stub, stubbed):
    def answer(action, parameters):
        if action == "DeleteSandboxTool":
            return {"Error": {"Code": "ResourceInUse.SandboxTool", "Message": "in use"}}
        return {"SandboxToolSet": [{"ToolId": "sdt-1", "Status": "DELETING"}]}

    stub.answer = answer
    stubbed.delete_tool("sdt-1")
