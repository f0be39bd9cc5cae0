"""What encloses a call in another process is what enclosed it where it was sent from."""

import contextvars
import time

import cloudpickle
import pytest
from prefect import flow, task
from prefect.context import hydrated_context, serialize_context

from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as, current_execution
from ags_flows.run.prefect_contexts import CARRIED, time_limits_of_flows

pytestmark = pytest.mark.usefixtures("prefect_server")


def elsewhere(sent, look=current_execution):
    """Look in a context as another process has it: it knows nothing but what was sent."""

    def hydrated():
        with hydrated_context(cloudpickle.loads(cloudpickle.dumps(sent))):
            return look()

    return contextvars.Context().run(hydrated)


def seen_here_and_elsewhere(sends):
    return current_execution(), elsewhere(sends())


@flow
def inner(sends, thing):
    return seen_here_and_elsewhere(sends)


@task
def around(sends, thing):
    return inner(sends, thing)


@flow
def outer(sends):
    return [seen_here_and_elsewhere(sends), inner(sends, object), around(sends, object)]


def test_the_path_of_executions_is_sent_with_the_context():
    seen = outer(serialize_context)
    for here, there in seen:
        assert here == there
    assert [[frame.kind for frame in here.frames] for here, _ in seen] == [
        ["flow"],
        ["flow", "flow"],
        ["flow", "task", "flow"],
    ]


def test_the_attempt_is_that_of_the_sender_whatever_the_server_has_since():
    @flow
    def late():
        flow_run = current_execution().frames[0]

        def sends():
            sent = serialize_context()
            sent["flow_run_context"]["flow_run"]["run_count"] = 7
            return sent

        return flow_run, inner(sends, object)[1]

    flow_run, there = late()
    assert there.frames[0] == flow_run == Frame("flow", flow_run.id, 1)


def test_time_limits_of_flows_are_those_of_the_sender():
    def limits():
        return [(limit.seconds, limit.ends) for limit in time_limits_of_flows()]

    @flow(timeout_seconds=400)
    def inner():
        # A task that is repeated begins with a new context.
        return limits(), elsewhere(serialize_context(), lambda: (limits(), elsewhere(serialize_context(), limits)))

    @flow(timeout_seconds=50)
    def outer():
        time.sleep(0.3)
        return inner()

    here, (there, further) = outer()
    assert [seconds for seconds, _ in here] == [50, 400]
    for seen in (there, further):
        assert seen == [(seconds, pytest.approx(ends, abs=0.1)) for seconds, ends in here]


def test_an_item_of_a_batch_that_sends_is_on_the_path():
    @flow
    def batch():
        with acting_as(current_execution().within_item("a", 1)):
            return seen_here_and_elsewhere(serialize_context)

    here, there = batch()
    assert here == there and [frame.kind for frame in there.frames] == ["flow", "item"]


def test_what_another_process_sends_on_has_the_whole_path():
    @flow
    def first():
        with acting_as(Execution((Frame("flow", "e" * 32, 3),), owner=Owner("run-1"))):
            return current_execution(), elsewhere(serialize_context(), lambda: elsewhere(serialize_context()))

    here, there = first()
    assert here.frames == there.frames and here.place == there.place and there.owner.flow_run_id == "run-1"


def test_a_subflow_whose_path_was_not_sent_takes_nothing_over_and_is_found_by_the_reaper():
    def sends():
        sent = serialize_context()
        del sent["flow_run_context"]["flow_run"]["context"][CARRIED]
        return sent

    (_, alone), (here, there), _ = outer(sends)
    assert [frame.kind for frame in alone.frames] == ["flow"]
    assert there.frames[0].kind == "task" and there.frames[0] not in here.frames
    assert there.frames[1:] == here.frames and there.owner.flow_run_id == here.owner.flow_run_id
