import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.ownership import Frame, Holder, relation

from .strategies import holders, later_attempts, pairs

FLOW, TASK, CALL = Frame("flow", "run"), Frame("task", "measure"), Frame("call", "x")
MIRRORED = {"same": "same", "superseded": "stale", "stale": "superseded", "sibling": "sibling", "stranger": "stranger"}


@given(pairs())
def test_the_relation_of_two_holders_is_symmetric_or_mirrored(pair):
    mine, theirs = pair
    assert relation(theirs, mine) == MIRRORED[relation(mine, theirs)]


@given(holders())
def test_a_holder_is_the_same_as_itself(holder):
    assert relation(holder, holder) == "same"


@given(pairs())
def test_only_equal_holders_are_the_same(pair):
    mine, theirs = pair
    assert (relation(mine, theirs) == "same") == (mine == theirs)


@given(pairs())
def test_the_outermost_frame_that_differs_decides(pair):
    mine, theirs = pair
    if mine == theirs:
        return
    both = list(zip(mine.frames, theirs.frames, strict=False))
    number, own, other = next((index, a, b) for index, (a, b) in enumerate(both) if a != b)
    if (own.kind, own.id) != (other.kind, other.id):
        assert relation(mine, theirs) == ("sibling" if number else "stranger")
    else:
        assert relation(mine, theirs) == ("superseded" if own.attempt > other.attempt else "stale")


@given(st.data())
def test_superseding_is_transitive(data):
    first = data.draw(holders())
    second = data.draw(later_attempts(first))
    third = data.draw(later_attempts(second))
    assert relation(second, first) == relation(third, second) == relation(third, first) == "superseded"


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((FLOW, CALL), (FLOW, Frame("call", "y")), "sibling"),
        ((FLOW, TASK, CALL), (FLOW, CALL), "sibling"),
        ((FLOW, TASK, CALL), (FLOW, Frame("task", "other", 9), CALL), "sibling"),
        ((Frame("flow", "run", 2), CALL), (FLOW, Frame("task", "measure", 9), CALL), "superseded"),
        ((FLOW, Frame("task", "measure", 2), CALL), (FLOW, TASK, CALL), "superseded"),
        ((FLOW, TASK, CALL), (Frame("flow", "run", 2), CALL), "stale"),
        ((Frame("flow", "other", 2), CALL), (FLOW, CALL), "stranger"),
        ((Frame("task", "run", 2), CALL), (FLOW, CALL), "stranger"),
    ],
)
def test_examples_of_relations(mine, theirs, expected):
    assert relation(Holder(mine), Holder(theirs)) == expected


@given(holders())
def test_a_holder_can_be_parsed_from_its_text(holder):
    assert Holder.parse(str(holder)) == holder


@pytest.mark.parametrize(
    "text",
    ["", " ", "f", "f:a", "f:a:", "f::1", "x:a:1", "f:a:one", "f:a:-1", "f:a:1 c", "f:a:1 c:x:", "f:a:" + "9" * 5000],
)
def test_a_damaged_text_is_not_parsed(text):
    assert Holder.parse(text) is None


@given(st.text())
def test_parsing_any_text_returns_a_holder_or_none(text):
    holder = Holder.parse(text)
    assert holder is None or Holder.parse(str(holder)) == holder


def test_a_holder_is_a_retry_if_any_enclosing_execution_is():
    assert not Holder((FLOW, TASK, CALL)).is_retry
    assert Holder((Frame("flow", "run", 2), TASK, CALL)).is_retry
    assert Holder((FLOW, Frame("task", "measure", 2), CALL)).is_retry


def test_a_holder_has_the_call_and_the_enclosing_flow_runs():
    outer, inner = uuid.uuid4(), uuid.uuid4()
    holder = Holder((Frame("flow", outer.hex), TASK, Frame("flow", inner.hex), CALL))
    assert holder.call == "x"
    assert holder.enclosing == holder.frames[:3]
    assert holder.flow_runs == (str(outer), str(inner))
