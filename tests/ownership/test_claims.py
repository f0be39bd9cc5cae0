import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.ownership import LIVE, Claim, Frame, Holder, claim, may_take_over, relation, take_over_order

from .strategies import holders


def holder(attempt, call, task=None):
    tasks = () if task is None else (Frame("task", task),)
    return Holder((Frame("flow", "run", attempt), *tasks, Frame("call", call)))


@given(holders(), st.lists(holders(), max_size=6), st.integers(0, 7))
def test_a_claim_gets_the_first_place_not_held_by_a_sibling_or_stranger(mine, held, first):
    found = claim(mine, held, first)
    outcomes = {"same": "same", "superseded": "taken", "stale": "stale"}
    relations = [relation(mine, theirs) for theirs in held]
    expected = next((number for number in range(first, len(held)) if relations[number] in outcomes), None)
    if expected is None:
        assert found == Claim(max(first, len(held)), "new")
    else:
        assert found == Claim(expected, outcomes[relations[expected]])


@given(holders(), st.lists(holders(), max_size=6))
def test_a_place_of_a_sibling_or_a_stranger_is_never_claimed(mine, held):
    number = claim(mine, held).number
    assert number == len(held) or relation(mine, held[number]) not in ("sibling", "stranger")


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 9)), unique=True, max_size=8))
def test_identical_calls_of_one_attempt_get_one_place_each(calls):
    held = []
    for task, number in calls:
        mine = holder(1, f"{task}{number}", task)
        found = claim(mine, held)
        assert found == Claim(len(held), "new")
        held.append(mine)
        assert claim(mine, held) == Claim(found.number, "same")


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_retry_takes_over_existing_places_and_starts_only_missing_ones(before, now):
    held = [holder(1, f"first-{number}") for number in range(before)]
    for number in range(now):
        mine = holder(2, f"second-{number}")
        assert claim(mine, held) == Claim(number, "taken" if number < before else "new")
        held[number : number + 1] = [mine]


def test_the_claim_of_a_superseded_attempt_is_stale():
    held = [holder(1, "a", "other"), holder(2, "b")]
    assert claim(holder(1, "c"), held) == Claim(1, "stale")


def instance_of(theirs, **metadata):
    return {"holder": str(theirs), **metadata}


@pytest.mark.parametrize("status", sorted(LIVE))
def test_a_live_instance_of_an_earlier_attempt_may_be_taken_over(status):
    assert may_take_over(holder(2, "b"), status, instance_of(holder(1, "a")))


@pytest.mark.parametrize("status", ["STOPPING", "STOPPED", "FAILED", "STARTING_FAILED", "PAUSE_FAILED", "STOP_FAILED"])
def test_an_instance_that_has_ended_is_not_taken_over(status):
    assert not may_take_over(holder(2, "b"), status, instance_of(holder(1, "a")))


@pytest.mark.parametrize("mark", [{"kept": "keep"}, {"kept": "pause"}])
def test_instances_that_were_kept_are_not_taken_over(mark):
    assert not may_take_over(holder(2, "b"), "RUNNING", instance_of(holder(1, "a"), **mark))


@given(holders(), holders())
def test_only_a_superseded_holder_is_taken_over(mine, theirs):
    assert may_take_over(mine, "RUNNING", instance_of(theirs)) == (relation(mine, theirs) in ("same", "superseded"))


@pytest.mark.parametrize("metadata", [{}, {"holder": ""}, {"holder": "damaged"}])
def test_an_instance_without_a_holder_is_not_taken_over(metadata):
    assert not may_take_over(holder(2, "b"), "RUNNING", metadata)


def test_instances_of_the_latest_attempt_are_taken_over_first():
    one, other, later = holder(1, "a", "task"), holder(1, "b", "other"), holder(2, "c", "task")
    assert sorted([one, later, other], key=take_over_order) == [later, one, other]
    outer = Holder((Frame("flow", "run", 2), Frame("task", "new", 1), Frame("call", "d")))
    inner = Holder((Frame("flow", "run", 1), Frame("task", "old", 9), Frame("call", "e")))
    assert sorted([inner, outer], key=take_over_order) == [outer, inner]
