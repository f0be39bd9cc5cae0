import dataclasses
import uuid
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from ags_flows.ownership import (
    Frame,
    Holder,
    Owner,
    Place,
    Step,
    belonging_to,
    fingerprint,
    flow_runs_of,
    held_by,
    holder_of,
    is_ours,
    label,
    run_tool_name,
)

from .strategies import holders

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=timezone.utc)
RUN, SUBFLOW = uuid.UUID(int=7), uuid.UUID(int=8)
HOLDER = Holder((Frame("flow", RUN.hex), Frame("call", "x")))
STEP = Step("start_instance", fingerprint({"tool": "etl"}), RUN.hex, Place(), HOLDER)
OWNER = Owner(str(RUN), "brave-otter", "flow-1", host="worker-1", pid=42)


def made_by(holder):
    return dataclasses.replace(STEP, holder=holder)


def test_the_order_of_arguments_does_not_matter():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert len(fingerprint("\ud800")) == 16


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), unique=True, min_size=2))
def test_each_call_and_each_generation_has_a_token_no_longer_than_64_characters(calls):
    tokens = [made_by(Holder((Frame("call", call),))).client_token(generation) for call, generation in calls]
    assert len(set(tokens)) == len(tokens)
    assert max(map(len, tokens)) <= 64


def test_the_same_call_has_the_same_token_and_another_family_has_another():
    assert STEP.client_token() == made_by(HOLDER).client_token(0)
    assert STEP.client_token() != dataclasses.replace(STEP, does="another").client_token()


@given(holders(), holders())
def test_the_family_does_not_depend_on_the_execution(one, other):
    assert made_by(one).family == made_by(other).family
    assert len(STEP.family) == 32


def test_the_family_depends_on_place_root_name_and_content():
    others = [
        dataclasses.replace(STEP, place=Place().within("measure", "pears")),
        dataclasses.replace(STEP, place=Place().within("measure", "plums")),
        dataclasses.replace(STEP, place=Place().within("measure", "pears").within("measure", "pears")),
        dataclasses.replace(STEP, root=SUBFLOW.hex),
        dataclasses.replace(STEP, name="start_instance/second"),
        dataclasses.replace(STEP, does=fingerprint({"tool": "other"})),
    ]
    assert len({STEP.family, *(other.family for other in others)}) == 7


def test_what_does_not_depend_on_the_place():
    elsewhere = dataclasses.replace(STEP, place=Place().within("measure", "pears"))
    assert elsewhere.what == STEP.what
    assert elsewhere.family != STEP.family


@given(holders(), st.none() | st.integers(30, 86400))
def test_metadata_carries_the_holder_and_the_step(holder, lease):
    metadata = label(made_by(holder), OWNER, NOW, lease)
    assert holder_of(metadata) == holder
    assert metadata["step-family"] == STEP.family
    assert metadata["step"] == "start_instance"
    assert metadata.get("lease") == (str(lease) if lease else None)
    assert metadata["created-at"] == "2026-11-23T03:00:00+00:00"
    assert is_ours(metadata)
    assert all(metadata.values())


@given(holders(), holders())
def test_a_take_over_replaces_the_holder_and_keeps_the_rest(first, second):
    before = label(made_by(first), OWNER, NOW, 900)
    after = before | held_by(second, dataclasses.replace(OWNER, host="worker-2", pid=43), 600)
    assert holder_of(after) == second
    assert (after["lease"], after["owner-host"], after["owner-pid"]) == ("600", "worker-2", "43")
    assert after["step-family"] == before["step-family"]
    assert after["created-at"] == before["created-at"]


def test_an_instance_belongs_to_every_flow_run_around_it():
    holder = Holder((Frame("flow", RUN.hex), Frame("flow", SUBFLOW.hex, 2), Frame("call", "x")))
    assert flow_runs_of(label(made_by(holder), OWNER, NOW)) == (str(RUN), str(SUBFLOW))
    owner = dataclasses.replace(OWNER, subflow_run_id="innermost")
    assert flow_runs_of(label(made_by(holder), owner, NOW)) == (str(RUN), str(SUBFLOW), "innermost")


def test_a_tool_belongs_to_the_flow_run_in_its_tags():
    assert flow_runs_of(belonging_to(OWNER)) == (str(RUN),)
    assert belonging_to(Owner("")) == {}
    assert flow_runs_of({}) == ()


def test_an_instance_started_outside_flow_runs_is_not_reaped():
    assert not is_ours(label(STEP, Owner("", host="laptop"), NOW))


@given(st.text(max_size=80), st.sets(st.uuids(version=4), min_size=2, max_size=10))
def test_the_name_of_a_runs_tool_is_at_most_50_characters(name, runs):
    names = {run_tool_name(name, "ab12cd", str(run)) for run in runs}
    assert max(map(len, names)) <= 50
    assert {run_tool_name(name, "ab12cd", run.hex) for run in runs} == names


def test_runs_that_started_at_the_same_time_have_different_tool_names():
    # The first digits of a UUID of version 7 are a timestamp.
    runs = [f"01993f3b-2c4d-7000-8000-{number:012x}" for number in range(100)]
    assert len({run_tool_name("a-name-that-is-longer-than-what-may-stay-of-it", "ab12", run) for run in runs}) == 100
