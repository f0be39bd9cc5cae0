"""A lost answer, a retry or a rerun never makes a second tool or instance."""

import pytest

from ags_flows.errors import ConflictError, UnreachableError
from ags_flows.lifecycle.create_once import create_tool_once, start_once
from ags_flows.models import ToolSpec
from ags_flows.ownership import LIVE, Identity, Owner

IDENTITY = Identity("run-1", "start_instance/", "abc")
OWNER = Owner("run-1", "brave-otter", host="here", pid=1)
SPEC = ToolSpec(name="once", image="python:3.11")


@pytest.fixture
def control(ags_config):
    return ags_config.control_plane()


@pytest.fixture
def start(control):
    def start(token, metadata):
        return control.start_instance(tool="base", metadata=metadata, client_token=token)

    return start


def live(control):
    return [one.id for one in control.list_instances() if one.status in LIVE]


def test_a_lost_answer_of_a_start_does_not_make_a_second_instance(ags_emulator, control, start):
    ags_emulator.fault("lost", "StartSandboxInstance")
    with pytest.raises(UnreachableError):
        start_once(control, IDENTITY, OWNER, start, first=True)
    made = live(control)
    instance, adopted = start_once(control, IDENTITY, OWNER, start)
    assert adopted
    assert [instance.id] == made == live(control)


def test_a_rerun_that_believes_to_be_the_first_gets_the_same_instance_by_its_token(control, start):
    first, _ = start_once(control, IDENTITY, OWNER, start, first=True)
    again, _ = start_once(control, IDENTITY, OWNER, start, first=True)
    assert first.id == again.id
    assert live(control) == [first.id]


def test_the_same_where_a_repeated_token_is_refused(ags_emulator, control, start):
    ags_emulator.repeat_client_tokens("refuse")
    first, _ = start_once(control, IDENTITY, OWNER, start, first=True)
    again, adopted = start_once(control, IDENTITY, OWNER, start, first=True)
    assert adopted
    assert first.id == again.id


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_dead_instance_is_followed_by_the_next_generation(ags_emulator, control, start, how):
    ags_emulator.repeat_client_tokens(how)
    seen = []
    for generation in range(3):
        instance, adopted = start_once(control, IDENTITY, OWNER, start)
        assert not adopted
        assert instance.metadata["generation"] == str(generation)
        seen.append(instance.id)
        control.stop_instance(instance.id)
        while control.get_instance(instance.id).status != "STOPPED":
            pass
    assert len(set(seen)) == 3


def test_instances_of_other_steps_are_left_alone(control, start):
    other, _ = start_once(control, Identity("run-2", "start_instance/", "abc"), OWNER, start)
    mine, adopted = start_once(control, IDENTITY, OWNER, start)
    assert not adopted
    assert mine.id != other.id


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_lost_answer_of_a_creation_does_not_make_a_second_tool(ags_emulator, control, how):
    ags_emulator.repeat_client_tokens(how)
    ags_emulator.fault("lost", "CreateSandboxTool")
    with pytest.raises(UnreachableError):
        create_tool_once(control, SPEC, IDENTITY)
    tool, _ = create_tool_once(control, SPEC, IDENTITY)
    assert [tool.id] == [one.id for one in control.list_tools(name="once")]


@pytest.mark.parametrize("how", ["replay", "refuse"])
def test_a_tool_that_was_deleted_since_is_made_anew_by_the_next_attempt(ags_emulator, control, how):
    ags_emulator.repeat_client_tokens(how)
    first, _ = create_tool_once(control, SPEC, IDENTITY)
    control.delete_tool(first.id)
    second, _ = create_tool_once(control, SPEC, IDENTITY)
    assert second.id != first.id
    third, _ = create_tool_once(control, SPEC, IDENTITY)
    assert third.id == second.id


def test_a_name_that_somebody_else_has_is_told(control):
    theirs = control.create_tool(SPEC)
    with pytest.raises(ConflictError, match=f"named 'once' already \\({theirs}"):
        create_tool_once(control, SPEC, IDENTITY)
