"""Rare interleavings, step by step: each violates an invariant under one weaker rule, but not under the real rules."""

import pytest

from . import programs
from .errors import BrokenRuleError
from .model import World
from .rules import Rules


def until(world, fiber, condition):
    """Let a fiber go on until a condition holds, or until it ends or waits."""
    for _ in range(50):
        if condition() or fiber not in world.ready():
            return
        world.step(fiber)


def executed(world, number):
    return lambda: sum(one.executions for one in world.instances.values()) >= number


def claimed(world, attempt):
    """Return True if an instance was claimed in the sandbox by an attempt of the flow run."""
    return lambda: any(one.chain and one.chain[-1].frames[0].attempt == attempt for one in world.instances.values())


def started(world, number):
    return lambda: len(world.instances) >= number


def open_sessions(world, number):
    return lambda: sum(len(one.sessions) for one in world.instances.values()) >= number


def a_retry_starts_late_in_the_lease(world):
    run = world.runs[0]
    until(world, run.main, executed(world, 1))
    world.kill_run(run)
    world.advance(700)
    world.retry_run(run)
    until(world, run.main, open_sessions(world, 2))
    world.advance(300)


def a_response_is_lost_while_a_parallel_call_is_made(world):
    until(world, world.runs[0].main, lambda: bool(world.runs[0].main.waiting))
    first, second, *_ = world.runs[0].main.waiting
    world.step(first)
    world.step(first, "response")
    until(world, second, executed(world, 2))
    until(world, second, lambda: second.done)
    world.step(first, "request")


def an_attempt_starts_an_instance_after_its_successor_began(world):
    run = world.runs[0]
    earlier = run.main
    world.step(earlier)
    world.retry_run(run)
    world.step(run.main)
    world.step(run.main)
    until(world, earlier, started(world, 1))
    until(world, run.main, executed(world, 1))
    world.kill_earlier(run)
    world.kill_run(run)
    world.retry_run(run)


def an_attempt_ends_while_its_successor_takes_over(world):
    run = world.runs[0]
    earlier = run.main
    until(world, earlier, lambda: world.closing(earlier))
    # The end looks at the metadata.
    world.step(earlier)
    world.retry_run(run)
    until(world, run.main, open_sessions(world, 2))
    until(world, earlier, lambda: earlier.done)


def a_take_over_is_slow_and_its_successor_takes_over_before_it_writes_metadata(world):
    run = world.runs[0]
    until(world, run.main, executed(world, 1))
    world.kill_run(run)
    world.retry_run(run)
    second = run.main
    until(world, second, claimed(world, 2))
    world.retry_run(run)
    until(world, run.main, open_sessions(world, 2))
    # Now the metadata names the second attempt again.
    until(world, second, lambda: second.done)


def a_run_is_killed_in_the_second_of_two_equal_sessions(world):
    run = world.runs[0]
    until(world, run.main, lambda: any(one.executions for one in list(world.instances.values())[1:]))
    world.kill_run(run)
    world.retry_run(run)


def an_instance_dies_before_the_response_to_its_start(world):
    fiber = world.runs[0].main
    world.step(fiber)
    world.step(fiber, "broken")


def two_equal_places_take_over_concurrently(world):
    run = world.runs[0]
    world.step(run.main)
    part = run.main.waiting[0]
    world.step(part)
    until(world, part.waiting[0], started(world, 1))
    world.kill_run(run)
    world.retry_run(run)
    for _ in range(60):
        for fiber in world.ready():
            world.step(fiber)


def an_item_of_the_first_of_two_batches_fails(world):
    run = world.runs[0]
    until(world, run.main, lambda: bool(run.main.waiting))
    part = run.main.waiting[0]
    world.step(part)
    until(world, part.waiting[0], executed(world, 1))
    world.fail(part.waiting[0])
    # Another process, without the hints of this one, continues.
    world.hints.clear()


SCENARIOS = [
    (a_retry_starts_late_in_the_lease, "one session", "renew_first", "an instance ended under its session"),
    (a_response_is_lost_while_a_parallel_call_is_made, "threads", "repeat_from_zero", "a ran 4 times"),
    (
        an_attempt_starts_an_instance_after_its_successor_began,
        "one session",
        "latest_first",
        "an older attempt's instance was taken",
    ),
    (an_attempt_ends_while_its_successor_takes_over, "one session", "release", "ended under another execution"),
    (an_item_of_the_first_of_two_batches_fails, "batches", "unique_items", "a current run"),
    (
        a_take_over_is_slow_and_its_successor_takes_over_before_it_writes_metadata,
        "one session",
        "release",
        "ended under another execution",
    ),
    (
        a_run_is_killed_in_the_second_of_two_equal_sessions,
        "sessions in a row",
        "ordinal",
        "commands of another session",
    ),
    (an_instance_dies_before_the_response_to_its_start, "one session", "generations", "an instance that had ended"),
    (two_equal_places_take_over_concurrently, "parallel equal places", "compare_and_set", "two current places"),
]


def follow(scenario, program, rules):
    world = World(programs.ALL[program], rules)
    try:
        scenario(world)
        world.finish()
    finally:
        world.discard()


@pytest.mark.parametrize(("scenario", "program", "rule", "found"), SCENARIOS)
def test_an_interleaving_violates_an_invariant_under_a_weaker_rule(scenario, program, rule, found):
    with pytest.raises(BrokenRuleError, match=found):
        follow(scenario, program, Rules(**{rule: False}))


@pytest.mark.parametrize(("scenario", "program", "rule", "found"), SCENARIOS)
def test_an_interleaving_violates_nothing_under_the_real_rules(scenario, program, rule, found):
    follow(scenario, program, Rules())
