"""Tools, instances, tokens and snapshots against the emulator, over HTTP and through the real SDK."""

import pytest
from pydantic import SecretStr

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import (
    ConfigurationError,
    ConflictError,
    CredentialsError,
    DuplicateRequestError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
)
from ags_flows.lifecycle.waiting import wait_instance_running, wait_instance_status, wait_tool_active
from ags_flows.models import Network, Resources, ToolSpec


@pytest.fixture(autouse=True)
def quick_tools(ags_emulator):
    ags_emulator.transition("tool.create", "at_once")


def spec(name="etl", **fields):
    return ToolSpec(name=name, image="python:3.11", **fields)


def running(control, **fields):
    instance = control.start_instance(**{"tool": "base", **fields})
    return wait_instance_running(control, instance.id, timeout=30)


def stopped(control, instance):
    control.stop_instance(instance.id)
    return wait_instance_status(control, instance.id, goal="STOPPED", timeout=30)


def test_a_tool_is_created_found_by_id_and_name_and_deleted_twice(control):
    tool_id = control.create_tool(
        spec(description="nightly", tags={"team": "data"}, resources=Resources(cpu="2", memory="4Gi"))
    )
    tool = control.get_tool(tool_id)
    assert control.get_tool("etl") == tool
    assert (tool.id, tool.name, tool.status, tool.image) == (tool_id, "etl", "ACTIVE", "python:3.11")
    assert (tool.description, tool.tags, tool.network_mode) == ("nightly", {"team": "data"}, "PUBLIC")
    assert tool.created_at.tzinfo is not None and tool.default_timeout == 300
    control.delete_tool("etl")
    control.delete_tool("etl")
    control.delete_tool(tool_id)
    with pytest.raises(NotFoundError, match=r"etl.*ResourceNotFound"):
        control.get_tool("etl")
    with pytest.raises(NotFoundError, match=tool_id):
        control.get_tool(tool_id)


def test_the_same_client_token_makes_one_tool(control, ags_emulator):
    assert control.create_tool(spec(), client_token="t-1") == control.create_tool(spec(), client_token="t-1")
    ags_emulator.repeat_client_tokens("refuse")
    with pytest.raises(DuplicateRequestError, match=r"DuplicateRequest, RequestId"):
        control.create_tool(spec(), client_token="t-1")
    with pytest.raises(ConflictError, match="etl"):
        control.create_tool(spec())
    assert len(control.list_tools(name="etl")) == 1


def test_all_tools_are_listed_over_many_pages(control):
    for number in range(230):
        control.create_tool(spec(f"etl-{number}", tags={"half": str(number % 2)}))
    names = {tool.name for tool in control.list_tools()}
    assert len(names) == 232
    assert {tool.name for tool in control.list_tools(tags={"half": "1"})} == {f"etl-{n}" for n in range(1, 230, 2)}
    assert len(control.list_tools(limit=105)) == 105
    assert control.list_tools(limit=0) == []
    ids = [tool.id for tool in control.list_tools(type="custom", status="ACTIVE")]
    assert len(control.list_tools(ids=ids)) == len(ids) == 231
    assert control.list_tools(ids=[]) == []
    assert control.list_tools(name="etl-7", type="browser") == []


def test_what_can_be_updated_of_a_tool_is_and_nothing_else(control):
    tool_id = control.create_tool(spec(tags={"a": "1", "b": "2"}, description="old"))
    control.update_tool(tool_id, tags={"c": "3"})
    assert control.get_tool(tool_id).tags == {"c": "3"} and control.get_tool(tool_id).description == "old"
    control.update_tool(tool_id, tags={}, description="", network=Network(mode="SANDBOX"))
    tool = control.get_tool(tool_id)
    assert (tool.tags, tool.description, tool.network_mode) == ({}, "", "SANDBOX")
    with pytest.raises(ConfigurationError, match="Nothing to update"):
        control.update_tool(tool_id)
    with pytest.raises(TypeError):
        control.update_tool(tool_id, name="other")


def test_a_tool_in_use_is_not_deleted_and_the_error_has_a_hint(control):
    tool_id = control.create_tool(spec())
    instance = running(control, tool="etl")
    with pytest.raises(ConflictError, match=r"ResourceInUse\.SandboxTool.*Stop its instances"):
        control.delete_tool(tool_id)
    stopped(control, instance)
    control.delete_tool(tool_id)


def test_an_instance_starts_with_its_metadata_and_is_stopped_twice(control):
    instance = control.start_instance(tool="base", timeout="10m", metadata={"owner": "flow-1", "Ünïcode": "✓"})
    assert instance.metadata == {"owner": "flow-1", "Ünïcode": "✓"} and instance.timeout == 600
    assert instance.tool_name == "base" and instance.expires_at > instance.created_at
    wait_instance_running(control, instance.id, timeout=30)
    assert control.get_instance(instance.id).status == "RUNNING"
    assert stopped(control, instance).stop_reason == "manual"
    control.stop_instance(instance.id)
    control.stop_instance("0123456789abcdef0123456789abcdef")
    with pytest.raises(NotFoundError, match="no instance"):
        control.get_instance("0123456789abcdef0123456789abcdef")


def test_the_same_client_token_makes_one_instance(control):
    first = control.start_instance(tool="base", client_token="step-1")
    assert control.start_instance(tool="base", client_token="step-1").id == first.id
    assert len(control.list_instances()) == 1


def test_instances_are_found_by_tool_state_metadata_and_id(control):
    tool_id = control.create_tool(spec())
    mine = running(control, tool="etl", metadata={"run": "1", "step": "a"})
    other = running(control, tool="base", metadata={"run": "2"})
    stopped(control, other)
    assert {instance.id for instance in control.list_instances()} == {mine.id, other.id}
    for found in (
        control.list_instances(tool="etl"),
        control.list_instances(tool=tool_id),
        control.list_instances(status="RUNNING"),
        control.list_instances(metadata={"run": "1"}),
        control.list_instances(ids=[mine.id, "unknown"]),
    ):
        assert [instance.id for instance in found] == [mine.id]
    assert control.list_instances(metadata={"run": "1", "step": "b"}) == []
    assert control.list_instances(tool="nothing") == []


def test_an_instance_is_extended_labelled_paused_and_resumed(control):
    instance = running(control, timeout="5m", metadata={"a": "1"})
    control.update_instance(instance.id, timeout="1h30m")
    assert control.get_instance(instance.id).timeout == 5400
    control.update_instance(instance.id, metadata={"b": "2"})
    assert control.get_instance(instance.id).metadata["b"] == "2"
    control.pause_instance(instance.id, memory=False)
    wait_instance_status(control, instance.id, goal="PAUSED", timeout=30)
    with pytest.raises(ConflictError, match="only RUNNING"):
        control.update_instance(instance.id, timeout="10m")
    control.resume_instance(instance.id, timeout="20m")
    assert wait_instance_status(control, instance.id, goal="RUNNING", timeout=30).timeout == 1200


def test_a_token_is_acquired_and_never_shown(control):
    instance = running(control)
    token = control.acquire_token(instance.id)
    assert token.instance_id == instance.id and token.expires_at is not None
    secret = token.token.get_secret_value()
    assert secret and secret not in repr(token) and secret not in token.model_dump_json()


def test_a_snapshot_is_made_started_from_and_deleted_twice(control):
    instance = running(control)
    snapshot = control.create_snapshot(instance.id, name="before", tags={"keep": "7d"}, client_token="s-1")
    assert (snapshot.name, snapshot.instance_id, snapshot.tags) == ("before", instance.id, {"keep": "7d"})
    assert [known.id for known in control.list_snapshots()] == [snapshot.id]
    again = control.start_instance(snapshot_id=snapshot.id)
    copy = control.start_instance(source_instance_id=instance.id)
    assert len({instance.id, again.id, copy.id}) == 3
    control.delete_snapshot(snapshot.id)
    control.delete_snapshot(snapshot.id)
    assert control.list_snapshots() == []


def test_a_quota_error_has_a_hint_and_quotas_can_be_read(control, ags_emulator):
    ags_emulator.limits(quotas=True, instances=1)
    running(control)
    with pytest.raises(
        QuotaExceededError, match=r"instances 1 of 1.*LimitExceeded\.SandboxInstance, RequestId .*Stop instances"
    ) as caught:
        control.start_instance(tool="base")
    assert caught.value.retryable and caught.value.request_id
    overview = control.quotas()
    assert (overview.instances.used, overview.instances.limit, overview.instances.free) == (1, 1, 0)
    assert overview.tools.free > 90


def test_wrong_keys_have_a_clear_error_and_are_not_retried(ags_emulator):
    def plane(secret_id, secret_key):
        keys = {"secret_id": SecretStr(secret_id), "secret_key": SecretStr(secret_key)}
        return ControlPlane(Connection(endpoint=ags_emulator.url, **keys))

    for wrong in (plane("AKIDnobody", "x"), plane(ags_emulator.secret_id, "not-the-key-at-all")):
        with pytest.raises(CredentialsError, match="TENCENTCLOUD_SECRET_ID") as caught:
            wrong.list_tools()
        assert "not-the-key-at-all" not in str(caught.value) and caught.value.__context__ is None
        wrong.close()


def test_without_keys_the_error_names_the_variables_and_the_emulator():
    with pytest.raises(CredentialsError, match=r"TENCENTCLOUD_SECRET_ID.*ags-flows emulator"):
        ControlPlane(Connection())


def test_a_role_of_the_wrong_form_is_explained(control):
    with pytest.raises(ConfigurationError, match=r"role_arn: 'not-a-role' .* 'qcs::cam::uin/<uin>:roleName/<name>'"):
        spec(role_arn="not-a-role")


def test_any_action_can_be_called_as_it_is(control):
    assert control.call("DescribeSandboxToolList", {"Limit": 1})["TotalCount"] == 2
    with pytest.raises(InvalidRequestError, match="UnknownParameter"):
        control.call("DescribeSandboxToolList", {"Colour": "red"})


def test_a_tool_becomes_active_after_a_while(control, ags_emulator):
    ags_emulator.transition("tool.create", "seconds", 0.3)
    tool_id = control.create_tool(spec())
    assert control.get_tool(tool_id).status == "CREATING"
    assert wait_tool_active(control, tool_id, timeout=10).status == "ACTIVE"


def test_equal_connections_share_a_client_and_different_ones_do_not(ags_config, ags_emulator):
    connection = ags_config.connection()
    assert ControlPlane.of(connection) is ControlPlane.of(ags_config.connection())
    elsewhere = Connection(endpoint=ags_emulator.url, region="ap-shanghai", secret_id=connection.secret_id,
                           secret_key=connection.secret_key)  # fmt: skip
    assert ControlPlane.of(elsewhere) is not ControlPlane.of(connection)
