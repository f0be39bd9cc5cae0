"""A lost response or a repeated call never creates a second tool, instance or snapshot."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ags_flows.errors import ConflictError, RequestInProgressError, UnreachableError
from ags_flows.lifecycle.create_once import create_snapshot_once, create_tool_once, start_once
from ags_flows.lifecycle.waiting import wait_instance_running, wait_tool_active
from ags_flows.models import ToolSpec
from ags_flows.ownership import LIVE, Frame, Holder, Owner, Place, Step, holder_of

OWNER = Owner("run-1", "brave-otter", host="here", pid=1)
SPEC = ToolSpec(name="once", image="python:3.11")


def step(call="c1", attempt=1, root="run-1"):
    return Step("start", "abc", root, Place(), Holder((Frame("flow", root, attempt), Frame("call", call))))


@pytest.fixture
def control(ags_config):
    return ags_config.control_plane()


@pytest.fixture
def start(control):
    def start(client_token, metadata):
        return control.start_instance(tool="base", metadata=metadata, client_token=client_token)

    return start


def live(control):
    return [one.id for one in control.list_instances() if one.status in LIVE]


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_lost_response_of_a_start_does_not_create_a_second_instance(ags_emulator, control, start, how):
    ags_emulator.repeat_client_tokens(how)
    ags_emulator.fault("lost", "StartSandboxInstance")
    with pytest.raises(UnreachableError):
        start_once(control, step(), OWNER, start)
    made = live(control)
    assert [start_once(control, step(), OWNER, start).id] == made == live(control)


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_dead_instance_is_followed_by_the_next_generation(ags_emulator, control, start, how):
    ags_emulator.repeat_client_tokens(how)
    seen = []
    for _ in range(3):
        seen.append(start_once(control, step(), OWNER, start).id)
        control.stop_instance(seen[-1])
    assert len(set(seen)) == 3


def test_other_calls_of_the_same_step_get_separate_instances(control, start):
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda call: start_once(control, step(call), OWNER, start).id, "abcd"))
    assert sorted(started) == sorted(live(control))
    assert len(set(started)) == 4


def test_a_request_in_progress_is_repeated_with_the_same_token(ags_emulator, control, start):
    ags_emulator.fault("error", "StartSandboxInstance", code="FailedOperation.RequestInProgress", times=1)
    tokens = []

    def noted(client_token, metadata):
        tokens.append(client_token)
        return start(client_token, metadata)

    started = start_once(control, step(), OWNER, noted)
    assert len(tokens) == 2 and len(set(tokens)) == 1
    assert live(control) == [started.id]
    assert RequestInProgressError.retryable


def test_the_metadata_has_family_and_holder(control, start):
    started = start_once(control, step(), OWNER, start, lease=900)
    metadata = control.get_instance(started.id).metadata
    assert holder_of(metadata) == step().holder
    assert (metadata["step-family"], metadata["lease"]) == (step().family, "900")


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_lost_response_of_a_creation_does_not_create_a_second_tool(ags_emulator, control, how):
    ags_emulator.repeat_client_tokens(how)
    ags_emulator.fault("lost", "CreateSandboxTool")
    with pytest.raises(UnreachableError):
        create_tool_once(control, SPEC, step())
    tool, _ = create_tool_once(control, SPEC, step())
    assert [tool.id] == [one.id for one in control.list_tools(name="once")]


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_deleted_tool_is_created_again(ags_emulator, control, how):
    ags_emulator.repeat_client_tokens(how)
    first, _ = create_tool_once(control, SPEC, step())
    control.delete_tool(first.id)
    second, _ = create_tool_once(control, SPEC, step())
    assert second.id != first.id
    third, found = create_tool_once(control, SPEC, step("c2", 2))
    assert third.id == second.id and found


def test_parallel_creations_from_an_equal_spec_share_one_tool(control):
    ready = threading.Barrier(4)

    def create(call):
        ready.wait()
        return create_tool_once(control, SPEC, step(call))[0].id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, "abcd"))) == 1


def test_the_name_of_a_tool_of_another_program_is_a_conflict(control):
    theirs = control.create_tool(SPEC)
    with pytest.raises(ConflictError, match=f"named 'once' already \\({theirs}"):
        create_tool_once(control, SPEC, step())


def test_the_name_of_a_tool_with_another_spec_is_a_conflict(control):
    create_tool_once(control, SPEC, step())
    with pytest.raises(ConflictError, match="named 'once' already"):
        create_tool_once(control, SPEC.model_copy(update={"image": "python:3.12"}), step("c2"))


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_lost_response_of_a_snapshot_does_not_create_a_second_one(ags_emulator, control, start, how):
    ags_emulator.repeat_client_tokens(how)
    instance = start_once(control, step(), OWNER, start)
    wait_instance_running(control, instance.id, timeout=30)
    ags_emulator.fault("lost", "CreateSandboxSnapshot")
    options = {"name": "before", "memory": False, "tags": {"keep": "7d"}}
    with pytest.raises(UnreachableError):
        create_snapshot_once(control, step("s"), instance.id, **options)
    saved = create_snapshot_once(control, step("s"), instance.id, **options)
    assert [one.id for one in control.list_snapshots()] == [saved.id]
    # A later attempt finds it, another call does not, and a deleted snapshot is created again.
    assert create_snapshot_once(control, step("t", 2), instance.id, **options).id == saved.id
    assert create_snapshot_once(control, step("u"), instance.id, **options).id != saved.id
    control.delete_snapshot(saved.id)
    assert create_snapshot_once(control, step("s"), instance.id, **options).id != saved.id


def test_a_failed_tool_is_replaced(ags_emulator, control):
    ags_emulator.transition("tool.create", "fail", reason="image not found", times=1)
    first, _ = create_tool_once(control, SPEC, step())
    ags_emulator.transition("tool.create", "at_once")
    while control.get_tool(first.id).status != "FAILED":
        pass
    second, found = create_tool_once(control, SPEC, step("c2"))
    assert second.id != first.id and not found
    assert wait_tool_active(control, second.id, timeout=10).ready
