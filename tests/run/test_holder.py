"""The identity of a step is the same after every kind of retry, and never the same for two steps."""

import pytest
from prefect import flow, task

from ags_flows.run.holder import identify, is_first_attempt, owner

pytestmark = pytest.mark.usefixtures("prefect_server")


@task
def step(command="make", name="exec"):
    return identify(name, {"command": command}).key


def test_identical_calls_of_one_attempt_are_told_apart():
    @flow
    def twice():
        return [step(), step(), step("test"), step(name="other")]

    assert len(set(twice())) == 4


def test_a_retried_task_is_the_same_step():
    seen = []

    @task(retries=2, retry_delay_seconds=0)
    def flaky():
        seen.append((identify("exec", {}).key, is_first_attempt()))
        if len(seen) < 3:
            raise RuntimeError("again")

    @flow
    def once():
        flaky()

    once()
    assert len({key for key, _ in seen}) == 1
    assert [first for _, first in seen] == [True, False, False]


def test_a_retried_flow_run_has_the_same_steps_again():
    attempts = []

    @flow(retries=1)
    def flaky():
        attempts.append([step(), step(), step("test")])
        if len(attempts) == 1:
            raise RuntimeError("again")

    flaky()
    assert attempts[0] == attempts[1]


def test_another_flow_run_has_other_steps():
    @flow
    def once():
        return step()

    assert once() != once()


def test_mapped_calls_are_told_apart_and_keep_their_identities_over_a_retry():
    attempts = []

    @flow(retries=1)
    def fan_out():
        attempts.append(set(step.map(["a", "b", "b", "c"]).result()))
        if len(attempts) == 1:
            raise RuntimeError("again")

    fan_out()
    assert len(attempts[0]) == 4
    assert attempts[0] == attempts[1]


def test_a_step_of_a_nested_flow_is_the_same_when_the_outer_flow_is_retried():
    attempts = []

    @flow
    def inner():
        return step(), owner()

    @flow(retries=1)
    def outer():
        attempts.append([inner(), inner()])
        if len(attempts) == 1:
            raise RuntimeError("again")

    outer()
    keys = [[key for key, _ in attempt] for attempt in attempts]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 2
    owners = [who for attempt in attempts for _, who in attempt]
    assert len({who.flow_run_id for who in owners}) == 1
    assert all(who.subflow_run_id not in ("", who.flow_run_id) for who in owners)


def test_outside_of_flow_runs_every_call_is_a_step_of_its_own():
    assert identify("exec", {}).key != identify("exec", {}).key
    assert is_first_attempt()
    assert owner().flow_run_id == ""
