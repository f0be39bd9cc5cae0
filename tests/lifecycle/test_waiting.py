"""Waits: shared describe calls, statuses that exclude the goal, timeouts, and cancellation."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ags_flows.errors import (
    ConfigurationError,
    CredentialsError,
    InstanceFailedError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    ToolFailedError,
    WaitCancelledError,
    WaitTimeoutError,
)
from ags_flows.lifecycle import waiting
from ags_flows.lifecycle.waiting import wait_instance_running, wait_instance_status, wait_tool_active
from ags_flows.models import ToolSpec


def poller_is_gone():
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("ags-wait-") for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert poller_is_gone()


@pytest.fixture
def states(stub):
    """`states({"i-1": ["STARTING", "RUNNING"]})`: each poll returns the next status, finally always the last one."""

    def play(scripts):
        looks = dict.fromkeys(scripts, 0)
        lock = threading.Lock()

        def respond(action, parameters):
            if action == "DescribeSandboxToolList":
                name, ids, field = "ToolId", parameters["ToolIds"], "SandboxToolSet"
            else:
                name, ids, field = "InstanceId", parameters["InstanceIds"], "InstanceSet"
            shown = []
            with lock:
                for each in ids:
                    if each in scripts:
                        state = scripts[each][min(looks[each], len(scripts[each]) - 1)]
                        looks[each] += 1
                        if isinstance(state, dict):
                            return state
                        if state:
                            shown.append({name: each, "Status": state, "StatusReason": "the reason", "ToolName": "n"})
            return {field: shown}

        stub.answer = respond

    return play


def refused(code, message="no"):
    return {"Error": {"Code": code, "Message": message}}


def test_a_tool_is_waited_for_until_it_is_active(control, ags_emulator):
    ags_emulator.transition("tool.create", "reads", 3)
    tool_id = control.create_tool(ToolSpec(name="etl", image="python:3.11"))
    assert wait_tool_active(control, tool_id, timeout=10).status == "ACTIVE"


def test_the_error_of_a_failed_tool_has_the_reason(control, ags_emulator):
    ags_emulator.transition("tool.create", "fail", 0.1, reason="image not found in registry")
    tool_id = control.create_tool(ToolSpec(name="etl", image="python:3.11"))
    with pytest.raises(ToolFailedError, match=r"etl.*image not found in registry.*role_arn"):
        wait_tool_active(control, tool_id, timeout=10)


def test_a_failed_start_raises_immediately(control, ags_emulator):
    ags_emulator.transition("instance.start", "fail", 0.1, reason="probe")
    instance = control.start_instance(tool="base")
    began = time.monotonic()
    with pytest.raises(InstanceFailedError, match=r"STARTING_FAILED.*probe"):
        wait_instance_running(control, instance.id, timeout=30)
    assert time.monotonic() - began < 5


def test_a_dead_sandbox_is_failed_for_goal_running_and_counts_as_stopped(control, ags_emulator):
    instance = control.start_instance(tool="base")
    wait_instance_running(control, instance.id, timeout=30)
    ags_emulator.kill_sandbox(instance.id)
    with pytest.raises(InstanceFailedError, match="FAILED"):
        wait_instance_running(control, instance.id, timeout=30)
    assert wait_instance_status(control, instance.id, goal="STOPPED", timeout=30).status == "FAILED"


def test_waits_of_many_threads_share_their_describe_calls(stub, stubbed, states):
    ids = [f"i-{number}" for number in range(150)]
    states({one: ["STARTING", "STARTING", "STARTING", "RUNNING"] for one in ids})
    with ThreadPoolExecutor(150) as pool:
        found = list(pool.map(lambda one: wait_instance_running(stubbed, one, timeout=20).id, ids))
    assert found == ids
    # About seven polls of at most two requests each, instead of 600.
    assert len(stub.requests) < 30
    assert max(len(parameters["InstanceIds"]) for _, parameters in stub.requests) == 100


def test_the_poll_interval_grows_and_is_reset_when_another_wait_begins(stub, stubbed, monkeypatch):
    # The second poll would come after a minute.
    monkeypatch.setattr(waiting, "GROWTH", 60 / waiting.FIRST_INTERVAL)
    monkeypatch.setattr(waiting, "LAST_INTERVAL", 60.0)
    polled, states = [threading.Semaphore(0), threading.Semaphore(0)], {"i-1": "STARTING", "i-2": "STARTING"}

    def answer(action, parameters):
        ids = parameters["InstanceIds"]
        polled[len(ids) - 1].release()
        return {"InstanceSet": [{"InstanceId": one, "Status": states[one]} for one in ids]}

    stub.answer = answer
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(wait_instance_running, stubbed, "i-1", timeout=40)
        assert polled[0].acquire(timeout=30)
        assert not polled[0].acquire(timeout=3 * waiting.FIRST_INTERVAL)
        states.update({"i-1": "RUNNING", "i-2": "RUNNING"})
        second = pool.submit(wait_instance_running, stubbed, "i-2", timeout=40)
        assert polled[1].acquire(timeout=30)
        assert [wait.result(30).status for wait in (first, second)] == ["RUNNING"] * 2


def test_waits_that_join_one_after_another_do_not_cause_many_calls(stub, stubbed, states):
    ids = [f"i-{number}" for number in range(40)]
    states({one: ["STARTING"] * 3 + ["RUNNING"] for one in ids})
    began = time.monotonic()

    def late(number):
        time.sleep(number * 0.02)
        return wait_instance_running(stubbed, ids[number], timeout=20)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(late, range(40)))
    assert len(stub.requests) <= (time.monotonic() - began) / waiting.FIRST_INTERVAL + 3


def test_the_timeout_error_has_the_last_status(stub, stubbed, states):
    states({"i-1": ["STARTING"]})
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"i-1 is still STARTING after 1 s.*startup_timeout"):
        wait_instance_running(stubbed, "i-1", timeout=0.7)
    assert 0.6 < time.monotonic() - began < 1.2


def test_a_wait_ends_within_a_second_of_its_cancellation(stub, stubbed, states):
    states({"i-1": ["STARTING"]})
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(WaitCancelledError, match="STARTING"):
        wait_instance_status(stubbed, "i-1", goal="STOPPED", timeout=30, cancelled=cancelled)
    assert time.monotonic() - began < 1.5
    timer.join()


def test_retryable_errors_of_polls_are_tolerated_until_the_timeout(stub, stubbed, states):
    trouble = refused("InternalError", "Internal server error")
    states({"sdt-1": [trouble, refused("RequestLimitExceeded"), "CREATING", trouble, "ACTIVE"]})
    assert wait_tool_active(stubbed, "sdt-1", timeout=10).status == "ACTIVE"
    states({"sdt-1": ["CREATING", trouble]})
    with pytest.raises(WaitTimeoutError, match=r"still CREATING.*last poll.*RequestId req-1"):
        wait_tool_active(stubbed, "sdt-1", timeout=0.8)


def test_a_permanent_error_of_a_poll_ends_the_wait(stub, stubbed, states):
    states({"sdt-1": ["CREATING", refused("AuthFailure.UnauthorizedOperation")]})
    with pytest.raises(CredentialsError, match=r"ags:\*"):
        wait_tool_active(stubbed, "sdt-1", timeout=10)


def test_an_invalid_id_does_not_end_the_other_waits(stub, stubbed):
    def answer(action, parameters):
        if "bad-id" in parameters["InstanceIds"]:
            return refused("InvalidParameterValue.InstanceIds", "bad-id is malformed")
        return {"InstanceSet": [{"InstanceId": one, "Status": "RUNNING"} for one in parameters["InstanceIds"]]}

    stub.answer = answer
    with ThreadPoolExecutor(3) as pool:
        bad = pool.submit(wait_instance_running, stubbed, "bad-id", timeout=10)
        worse = pool.submit(wait_instance_running, stubbed, "../etc", timeout=10)
        good = [pool.submit(wait_instance_running, stubbed, f"i-{number}", timeout=10) for number in range(3)]
        assert [wait.result().status for wait in good] == ["RUNNING"] * 3
        with pytest.raises(InvalidRequestError, match="malformed"):
            bad.result()
        with pytest.raises(ConfigurationError, match="etc"):
            worse.result()


@pytest.mark.parametrize(
    ("goal", "script", "outcome"),
    [
        ("RUNNING", ["PAUSED", "PAUSED", "RESUMING", "RUNNING"], "RUNNING"),
        ("RUNNING", ["STARTING", "UNHEALTHY", "RUNNING"], "RUNNING"),
        ("RUNNING", ["STARTING", "A_NEW_STATE", "RUNNING"], "RUNNING"),
        ("RUNNING", ["", "", "STARTING", "RUNNING"], "RUNNING"),
        ("RUNNING", ["STARTING", "PAUSED"], InstanceFailedError),
        ("RUNNING", ["RESUMING", "RESUME_FAILED"], InstanceFailedError),
        ("RUNNING", ["RESUMING", "PAUSED"], InstanceFailedError),
        ("RUNNING", ["FORK_FAILED"], InstanceFailedError),
        ("RUNNING", ["FAILED"], InstanceFailedError),
        ("RUNNING", ["STARTING", "STOPPING"], InstanceGoneError),
        ("RUNNING", ["STOPPED"], InstanceGoneError),
        ("RUNNING", ["STARTING", ""], InstanceGoneError),
        ("PAUSED", ["RUNNING", "PAUSING", "PAUSED"], "PAUSED"),
        ("PAUSED", ["RUNNING", "RUNNING", "PAUSED"], "PAUSED"),
        ("PAUSED", ["PAUSING", "RUNNING"], InstanceFailedError),
        ("PAUSED", ["PAUSING", "PAUSE_FAILED"], InstanceFailedError),
        ("PAUSED", ["STOPPED"], InstanceGoneError),
        ("STOPPED", ["RUNNING", "STOPPING", "STOPPED"], "STOPPED"),
        ("STOPPED", ["STOPPING", ""], "STOPPED"),
        ("STOPPED", [""], "STOPPED"),
        ("STOPPED", ["", "STOPPING", "", "", "STOPPING", "STARTING_FAILED"], "STARTING_FAILED"),
        ("STOPPED", ["STARTING_FAILED"], "STARTING_FAILED"),
        ("STOPPED", ["PAUSE_FAILED", "STOPPED"], "STOPPED"),
        ("STOPPED", ["STOPPING", "STOP_FAILED"], InstanceFailedError),
        ("STOPPED", ["STOPPING_FAILED"], InstanceFailedError),
    ],
)
def test_each_sequence_of_statuses_has_its_outcome(stub, stubbed, states, monkeypatch, goal, script, outcome):
    monkeypatch.setattr(waiting, "FIRST_INTERVAL", 0.01)
    states({"i-1": script})
    if isinstance(outcome, str):
        assert wait_instance_status(stubbed, "i-1", goal=goal, timeout=10).status == outcome
    else:
        with pytest.raises(outcome) as caught:
            wait_instance_status(stubbed, "i-1", goal=goal, timeout=10)
        assert caught.value.hint


def test_an_unknown_id_is_an_error_after_a_while(stub, stubbed, states, monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_INTERVAL", 0.02)
    monkeypatch.setattr(waiting, "UNKNOWN_FOR", 0.1)
    states({})
    with pytest.raises(NotFoundError, match="tool sdt-1"):
        wait_tool_active(stubbed, "sdt-1", timeout=10)
    with pytest.raises(InstanceGoneError, match="instance i-1"):
        wait_instance_running(stubbed, "i-1", timeout=10)


def test_one_missing_poll_late_in_a_wait_does_not_end_it(stub, stubbed, states, monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_INTERVAL", 0.01)
    monkeypatch.setattr(waiting, "UNKNOWN_FOR", 0.0)
    states({"i-1": ["STARTING", "", "RUNNING"]})
    assert wait_instance_running(stubbed, "i-1", timeout=10).status == "RUNNING"


def test_waiting_for_a_tool_that_is_being_deleted_raises_an_error(stub, stubbed, states):
    states({"sdt-1": ["DELETING"]})
    with pytest.raises(NotFoundError, match="deleted"):
        wait_tool_active(stubbed, "sdt-1", timeout=10)


def test_an_invalid_goal_raises_an_error(stub, stubbed):
    with pytest.raises(ConfigurationError, match="RUNNING, PAUSED, STOPPED, got 'ASLEEP'"):
        wait_instance_status(stubbed, "i-1", goal="ASLEEP", timeout=1)
    assert stub.requests == []


def test_each_kind_of_resource_of_each_connection_is_polled_separately(stub, stubbed, states):
    states({"i-1": ["STARTING", "RUNNING"], "sdt-1": ["CREATING", "ACTIVE"]})
    elsewhere = stub.control(region="ap-shanghai")
    with ThreadPoolExecutor(3) as pool:
        waits = [
            pool.submit(wait_instance_running, stubbed, "i-1", timeout=10),
            pool.submit(wait_tool_active, stubbed, "sdt-1", timeout=10),
            pool.submit(wait_instance_running, elsewhere, "i-1", timeout=10),
        ]
        assert [wait.result().status for wait in waits] == ["RUNNING", "ACTIVE", "RUNNING"]
    assert {headers["X-TC-Region"] for headers in stub.headers} == {"ap-guangzhou", "ap-shanghai"}
    elsewhere.close()


def test_the_thread_ends_after_the_last_wait_and_the_next_wait_starts_another_one(stub, stubbed, states):
    for _ in range(3):
        states({"i-1": ["STARTING", "RUNNING"]})
        wait_instance_running(stubbed, "i-1", timeout=10)
        assert poller_is_gone()
