"""The hook that stops what a run that is over has left, in a process that knows only the run."""

from datetime import datetime, timezone
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from ags_flows import AGSConfig, SandboxJob
from ags_flows.blocks import ConfigChoice
from ags_flows.flows import hooks, stop_sandboxes
from ags_flows.lifecycle.waiting import wait_instance_running, wait_tool_active
from ags_flows.models import ToolSpec
from ags_flows.ownership import KEPT, MANAGED_BY, MANAGED_BY_KEY, Frame, Holder, Owner, Place, Step, belonging_to, label
from ags_flows.testing import config_for

ENDED = {"STOPPING", "STOPPED"}

# Events of the hook go to a server; without one, Prefect starts one.
pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def nightly():
    """Stand for the flow that the hook is given."""


@pytest.fixture
def run(ags_config):
    return FlowRun(id=uuid4(), flow_id=uuid4(), name="quiet-otter", parameters={"config": ags_config})


@pytest.fixture
def start(ags_config):
    """Return a function that starts an instance of the last one of some flow runs, nested in each other."""
    control = ags_config.control_plane()

    def started(*path, tool="base", timeout="24h"):
        frames = [Frame("flow", identifier.hex) for identifier in path]
        step = Step("start", "p", str(path[0]), Place(), Holder((*frames, Frame("call", "c"))))
        metadata = label(step, Owner(str(path[0])), datetime.now(timezone.utc))
        instance = control.start_instance(tool=tool, timeout=timeout, metadata=metadata)
        return wait_instance_running(control, instance.id, timeout=30)

    return started


@pytest.fixture
def made_tool(ags_config):
    """Return a function that creates a tool as a session does for its flow run."""
    control = ags_config.control_plane()

    def made(name, run_id):
        tags = {MANAGED_BY_KEY: MANAGED_BY, **belonging_to(Owner(str(run_id)))}
        tool = control.create_tool(ToolSpec(name=name, image="python:3.11", tags=tags))
        wait_tool_active(control, tool, timeout=30)
        return tool

    return made


@pytest.fixture
def status(ags_config):
    return lambda instance: ags_config.control_plane().get_instance(instance.id).status


@pytest.fixture
def tools(ags_config):
    return lambda: {tool.name for tool in ags_config.control_plane().list_tools() if tool.status != "DELETING"}


def test_one_throttled_stop_does_not_keep_the_others_running(ags_emulator, run, start, status):
    instances = [start(run.id) for _ in range(4)]
    other = start(uuid4())
    ags_emulator.fault("error", "StopSandboxInstance", code="RequestLimitExceeded", message="slow down")
    stop_sandboxes(nightly, run, Cancelling())
    assert {status(one) for one in instances} <= ENDED
    assert status(other) == "RUNNING"


def test_a_sandbox_that_is_kept_for_a_person_stays(run, start, status, ags_config):
    kept, left = start(run.id), start(run.id)
    ags_config.control_plane().update_instance(kept.id, metadata={KEPT: "keep"})
    stop_sandboxes(nightly, run, Cancelling())
    assert (status(kept), status(left) in ENDED) == ("RUNNING", True)


def test_a_list_that_fails_is_repeated(ags_emulator, run, start, status):
    instance = start(run.id)
    ags_emulator.fault("error", "DescribeSandboxInstanceList", code="InternalError", message="oops")
    stop_sandboxes(nightly, run, Cancelling())
    assert status(instance) in ENDED


def test_a_stop_that_fails_for_good_is_logged_and_the_others_are_stopped(ags_emulator, run, start, status, caplog):
    instances = [start(run.id) for _ in range(4)]
    ags_emulator.fault("error", "StopSandboxInstance", code="UnauthorizedOperation", message="no")
    stop_sandboxes(nightly, run, Cancelling())
    left = [one for one in instances if status(one) not in ENDED]
    assert len(left) == 1
    assert f"Instance {left[0].id} could not be stopped and is left to its lease" in caplog.text


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["outer", "middle", "inner"])
def test_any_of_three_nested_flow_runs_finds_the_sandbox(run, start, status, cancelled):
    path = [uuid4(), uuid4(), uuid4()]
    instance = start(*path)
    stop_sandboxes(nightly, run.model_copy(update={"id": path[cancelled]}), Cancelling())
    assert status(instance) in ENDED


def test_the_tools_of_the_run_are_deleted_once_their_instances_are_stopped(
    ags_emulator, run, start, made_tool, tools, caplog
):
    ags_emulator.transition("instance.stop", "seconds", 1)
    mine, other = made_tool("mine", run.id), made_tool("other", uuid4())
    start(run.id, tool=mine)
    start(run.id, tool=other)
    ags_emulator.fault("error", "DeleteSandboxTool", code="InternalError", message="oops")
    stop_sandboxes(nightly, run, Cancelling())
    assert tools() & {"mine", "other"} == {"other"}
    assert "Deleted tool mine" in caplog.text


def test_a_tool_whose_instances_do_not_stop_in_time_is_left_to_the_reaper(
    ags_emulator, run, start, made_tool, tools, caplog, monkeypatch
):
    monkeypatch.setattr(hooks, "TOOL_PATIENCE", 0.2)
    ags_emulator.transition("instance.stop", "never")
    instances = [start(run.id, tool=made_tool(name, run.id)) for name in ("first", "second")]
    stop_sandboxes(nightly, run, Cancelling())
    assert {"first", "second"} <= tools()
    for instance, name in zip(instances, ("first", "second"), strict=True):
        assert f"Tool {name} is left to the reaper: after 0.2 s it is still in use by {instance.id}" in caplog.text


def test_a_tool_that_is_in_use_is_left_to_the_reaper_and_the_next_one_is_deleted(
    ags_emulator, run, made_tool, tools, caplog
):
    for name in ("first", "second"):
        made_tool(name, run.id)
    ags_emulator.fault("error", "DeleteSandboxTool", code="ResourceInUse.SandboxTool", message="in use")
    stop_sandboxes(nightly, run, Cancelling())
    assert len({"first", "second"} & tools()) == 1
    assert "is left to the reaper, since it is in use" in caplog.text
    assert "WARNING" not in {record.levelname for record in caplog.records if "left to the reaper" in record.message}


def test_a_run_that_names_no_configuration_and_has_no_sandboxes_is_logged_with_the_region(
    ags_config, run, start, status, caplog, monkeypatch
):
    monkeypatch.setattr(hooks, "AGSConfig", lambda: ags_config)
    run = run.model_copy(update={"parameters": {}})
    stop_sandboxes(nightly, run, Cancelling())
    assert f"none found in {ags_config.region}" in caplog.text
    caplog.clear()
    instance = start(run.id)
    stop_sandboxes(nightly, run, Cancelling())
    assert status(instance) in ENDED
    # What has ended already, as by its session, proves that the account is the right one.
    stop_sandboxes(nightly, run, Cancelling())
    assert "none found" not in caplog.text


def test_a_run_that_names_its_configuration_and_has_no_sandboxes_logs_nothing(run, caplog):
    stop_sandboxes(nightly, run, Cancelling())
    assert "none found" not in caplog.text


def test_a_job_names_its_configuration(ags_config, run, start, status):
    instance = start(run.id)
    job = SandboxJob(command="true", tool="base", config=ags_config)
    stop_sandboxes(nightly, run.model_copy(update={"parameters": {"job": job}}), Cancelling())
    assert status(instance) in ENDED


def test_ags_that_does_not_respond_is_logged(run, caplog, monkeypatch):
    unreachable = run.parameters["config"].model_copy(update={"http_endpoint": "http://127.0.0.1:9"})
    monkeypatch.setattr(hooks, "persistently", lambda action, *options: action())
    stop_sandboxes(nightly, run.model_copy(update={"parameters": {"config": unreachable}}), Cancelling())
    assert "left to their lease" in caplog.text


def test_only_a_run_that_asks_for_it_is_stopped_after_a_crash(run, start, status):
    instance = start(run.id)
    hooks.stop_sandboxes_if_asked(nightly, run, SimpleNamespace(name="Crashed"))
    assert status(instance) == "RUNNING"
    asked = run.model_copy(update={"parameters": {**run.parameters, "on_crash": "stop"}})
    hooks.stop_sandboxes_if_asked(nightly, asked, SimpleNamespace(name="Crashed"))
    assert status(instance) in ENDED


USERS_OWN = [
    {"config": {"region": "north"}},
    {"config": {"region": "Not a region!"}},
    {"config": "north"},
    {"config": 7},
    {"config": None},
    {"config": {"$ref": "not a reference"}},
    {"config": {"$ref": {"block_document_id": "7d0a1f7e-6f0e-4f35-9d1c-1d2f0f4e7a11"}}},
    {"config": {"$ref": {"something": "else"}}},
    {"job": {"command": "train", "config": {"region": "north"}}},
    {"job": "nightly"},
]


@pytest.mark.parametrize("parameters", USERS_OWN, ids=str)
def test_other_parameters_of_the_user_do_not_keep_the_sandboxes_running(
    ags_config, ags_emulator, run, start, status, monkeypatch, parameters
):
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    instance = start(run.id)
    stop_sandboxes(nightly, run.model_copy(update={"parameters": parameters}), Cancelling())
    assert status(instance) in ENDED


@flow
def declared(settings: AGSConfig | None = None, saved: SandboxJob | None = None):
    """Stand for a flow that names its blocks in another way."""


@flow
def chosen(where: ConfigChoice = ""):
    """Stand for a flow that takes the name of a block."""


@pytest.fixture(scope="module")
def saved(prefect_server, ags_emulator_process):
    """Save a configuration and a job that has it; returns references to them as forms submit them."""
    config = config_for(ags_emulator_process).save("hooked", overwrite=True)
    job = SandboxJob(command="true", tool="base", config=AGSConfig.load("hooked")).save("hooked", overwrite=True)
    return [{"$ref": {"block_document_id": str(document)}} for document in (config, job)]


@pytest.mark.parametrize(
    "how",
    [
        *("fields", "reference", "name", "job by reference"),
        *(pytest.param(how, marks=pytest.mark.long) for how in ("serialized", "job")),
    ],
)
def test_a_configuration_is_found_whatever_the_name_and_form_of_its_parameter(
    ags_config, run, start, status, saved, how
):
    keys = ags_config.credentials
    fields = {
        "http_endpoint": ags_config.http_endpoint,
        "credentials": {"secret_id": keys.secret_id, "secret_key": keys.secret_key},
    }
    of_flow, parameters = {
        "fields": (declared, {"settings": fields}),
        "serialized": (nightly, {"other": {**fields, "block_type_slug": "ags-config"}}),
        "reference": (nightly, {"other": saved[0]}),
        "name": (chosen, {"where": "hooked"}),
        "job": (declared, {"saved": SandboxJob(command="true", tool="base", config=ags_config)}),
        "job by reference": (declared, {"saved": saved[1]}),
    }[how]
    instance = start(run.id)
    stop_sandboxes(of_flow, run.model_copy(update={"parameters": parameters}), Cancelling())
    assert status(instance) in ENDED


def test_a_job_that_asks_for_it_is_stopped_after_a_crash(ags_config, run, start, status):
    instance = start(run.id)
    job = SandboxJob(command="true", tool="base", config=ags_config)
    crashed = SimpleNamespace(name="Crashed")
    hooks.stop_sandboxes_if_asked(declared, run.model_copy(update={"parameters": {"saved": job}}), crashed)
    assert status(instance) == "RUNNING"
    job = job.model_copy(update={"on_crash": "stop"})
    hooks.stop_sandboxes_if_asked(declared, run.model_copy(update={"parameters": {"saved": job}}), crashed)
    assert status(instance) in ENDED
