"""An attempt that a later one has superseded does nothing to it, also in the same process, and ends with the reason."""

import os
import sys
import time

import cloudpickle
import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from ags_flows import sandbox_session, tasks
from ags_flows.errors import ConfigurationError, SupersededError
from ags_flows.models import CustomConfiguration, ToolSpec
from ags_flows.ownership import LIVE, Frame, Owner
from ags_flows.run.fingerprints import of_parameters
from ags_flows.run.holder import Execution, acting_as
from ags_flows.run.prefect_contexts import attempt_of_task


@pytest.fixture
def attempt(request):
    """Yield the block of one attempt of a flow run of this test."""
    run = f"{abs(hash(request.node.nodeid)):032x}"[-32:]
    return lambda number: acting_as(Execution((Frame("flow", run, number),), owner=Owner("run-1")))


def opened(config, **options):
    """Open a session without leaving it, as a process does that lives on beside its successor."""
    session = sandbox_session("base", config=config, **options)
    return session, session.__enter__()


def state(config, sandbox):
    return config.control_plane().get_instance(sandbox.instance.id).status


@pytest.mark.parametrize(
    "error", [None, ValueError("failed"), KeyboardInterrupt()], ids=["success", "failure", "Ctrl-C"]
)
def test_the_end_of_a_superseded_attempt_leaves_the_sandbox_and_the_waits_of_its_successor(ags_config, attempt, error):
    with attempt(1):
        session, first = opened(ags_config)
    with attempt(2), sandbox_session("base", config=ags_config) as second:
        assert second.instance.id == first.instance.id
        handle = second.start("sleep 2; echo done")
        with attempt(1):
            session.__exit__(type(error) if error else None, error, None)
        assert second.wait(handle).stdout == "done\n"
        assert state(ags_config, second) == "RUNNING"
    assert state(ags_config, second) != "RUNNING"


@pytest.mark.parametrize("on_failure", ["stop", "keep", "pause"])
def test_the_failure_of_a_superseded_attempt_takes_the_sandbox_from_no_successor(ags_config, attempt, on_failure):
    with attempt(1):
        session, first = opened(ags_config, on_failure=on_failure)
    with attempt(2):
        _, second = opened(ags_config)
    with attempt(1):
        error = ValueError("failed")
        session.__exit__(ValueError, error, None)
    # The second attempt dies.
    with attempt(3), sandbox_session("base", config=ags_config) as third:
        assert third.instance.id == second.instance.id == first.instance.id


def test_a_superseded_attempt_runs_and_kills_nothing(ags_config, attempt):
    with attempt(1):
        _, first = opened(ags_config)
        handle = first.start("sleep 3; echo whole")
    with attempt(2), sandbox_session("base", config=ags_config) as second:
        again = second.start("sleep 3; echo whole")
        with attempt(1):
            for options in ({}, {"user": "root"}, {"durable": False}):
                with pytest.raises(SupersededError, match="A later attempt"):
                    first.run("echo x >> /tmp/ran", **options)
            first.kill(handle)
        assert second.wait(again).stdout == "whole\n"
        assert second.run("cat /tmp/ran").exit_code == 1


def test_a_superseded_attempt_that_waits_ends_with_the_reason(ags_config, attempt):
    with attempt(1):
        session, first = opened(ags_config, lease="30s")
        handle = first.start("sleep 60")
    with attempt(2), sandbox_session("base", config=ags_config) as second:
        assert second.instance.id == first.instance.id
        with attempt(1), pytest.raises(SupersededError, match=r"A later attempt \(flow run .*\) has taken over"):
            first.wait(handle)


def test_a_session_ends_although_neither_the_sandbox_nor_the_list_responds(ags_config, ags_emulator, attempt):
    with attempt(1), sandbox_session("base", config=ags_config) as sandbox:
        ags_emulator.stream_fault("status", status=502, times=None)
        ags_emulator.fault("error", "DescribeSandboxInstanceList", code="InternalError", message="no", times=None)
    ags_emulator.clear_faults()
    deadline = time.monotonic() + 20
    while state(ags_config, sandbox) == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_cell_whose_result_cannot_be_kept_runs_once(ags_config, ags_emulator, attempt):
    with attempt(1):
        session = sandbox_session("code-interpreter-v1", config=ags_config)
        with session as sandbox:
            ags_emulator.stream_fault("status", path="/files", status=502, times=1)
            code = "open('/tmp/ran', 'a').write('x')"
            assert tasks.run_code.fn(sandbox.instance, code, config=ags_config).error is None
            assert sandbox.run("cat /tmp/ran").stdout == "x"


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class Fruit:
    def __init__(self, name):
        self.name = name

    def weigh(self):
        return self.name


def test_different_parameters_never_have_an_equal_fingerprint():
    pairs = [
        (Fruit("pears").weigh, Fruit("plums").weigh),
        (Loose(name="pears"), Loose(name="plums")),
        (SecretStr("pears"), SecretStr("plums")),
        (Fruit("pears"), Fruit("plums")),
        ({"a": 1}, {"a": True, "b": 1}),
        (len, print),
        (lambda: 1, lambda: 2),
    ]
    for one, other in pairs:
        assert of_parameters({"value": one}) != of_parameters({"value": other})
    for again in (lambda: Fruit("pears").weigh, lambda: Loose(name="pears"), lambda: SecretStr("x"), lambda: len):
        assert of_parameters({"value": again()}) == of_parameters({"value": again()})


def test_a_thread_that_outlives_its_attempt_keeps_the_number_of_it():
    from datetime import datetime, timedelta, timezone
    from types import SimpleNamespace
    from uuid import uuid4

    run = SimpleNamespace(id=uuid4(), run_count=1)
    begun = datetime.now(timezone.utc)
    first = SimpleNamespace(task_run=run, start_time=begun, _token=object())
    assert attempt_of_task(first) == 1
    run.run_count = 2
    # The clock of the machine was set back between the attempts.
    second = SimpleNamespace(task_run=run, start_time=begun - timedelta(seconds=30), _token=object())
    unseen = SimpleNamespace(task_run=run, start_time=begun + timedelta(milliseconds=1), _token=None)
    assert (attempt_of_task(first), attempt_of_task(second), attempt_of_task(unseen)) == (1, 2, 1)


def test_a_retry_does_not_take_over_a_sandbox_that_was_started_without_an_override(ags_config, attempt, monkeypatch):
    """The first attempt dies after AGS left out the override, and before it has stopped the sandbox."""
    control = ags_config.control_plane()
    send = control._transport.call
    forgets = [True]

    def forgetful(action, parameters, *rest):
        if forgets and action == "StopSandboxInstance":
            raise KeyboardInterrupt
        if forgets and action == "StartSandboxInstance":
            parameters = {key: value for key, value in parameters.items() if key != "CustomConfiguration"}
        return send(action, parameters, *rest)

    spec = ToolSpec(name="overridden", image="python:3.11")
    slim = CustomConfiguration(image="python:3.12")
    monkeypatch.setattr(control._transport, "call", forgetful)
    with attempt(1), pytest.raises(KeyboardInterrupt):
        sandbox_session(spec, config=ags_config, custom=slim, delete_tool=False).__enter__()
    (wrong,) = [one for one in control.list_instances() if one.status in LIVE]
    forgets.clear()
    with attempt(2), sandbox_session(spec, config=ags_config, custom=slim, delete_tool=False) as second:
        assert second.instance.id != wrong.id
        assert control.get_instance(wrong.id).status not in LIVE


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_that_leaves_the_block_ends_nothing(ags_config, attempt):
    try:
        with attempt(1), sandbox_session("base", config=ags_config) as sandbox:
            child = os.fork()
            if child == 0:
                sys.exit()
            os.waitpid(child, 0)
            assert state(ags_config, sandbox) == "RUNNING"
    except SystemExit:
        os._exit(0)


@pytest.mark.parametrize("name", ["kept", "holder", "step"])
def test_metadata_that_decide_about_a_sandbox_cannot_be_given(ags_config, name):
    with pytest.raises(ConfigurationError, match=f"metadata: '{name}' is set by this package"):
        sandbox_session("base", metadata={name: "x"}, config=ags_config).__enter__()


def test_a_throttled_start_outside_of_a_flow_is_repeated_as_one_call(ags_config, ags_emulator):
    ags_emulator.fault("lost", "StartSandboxInstance")
    with sandbox_session("base", config=ags_config) as sandbox:
        assert [one.id for one in ags_config.control_plane().list_instances() if one.status in LIVE] == [
            sandbox.instance.id
        ]


def test_a_session_is_sent_to_another_process(ags_config):
    with sandbox_session("base", config=ags_config) as sandbox:
        sent = cloudpickle.loads(cloudpickle.dumps(sandbox))
        assert (sent.instance.id, sent.run("echo sent").stdout) == (sandbox.instance.id, "sent\n")
