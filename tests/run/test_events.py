"""The events of sandboxes on the Prefect server, and the spans of requests."""

import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from ags_flows import sandbox_session
from ags_flows.errors import CommandTimeoutError
from ags_flows.flows import run_batch
from ags_flows.models import ToolSpec
from ags_flows.ownership import Owner
from ags_flows.run.events import tell_instance
from ags_flows.run.holder import Execution, acting_as
from ags_flows.tasks import create_snapshot, delete_snapshot, pause_instance, resume_instance

TOOL = ToolSpec(name="told", image="python:3.11")
EXPECTED = [
    "ags.tool.created",
    "ags.tool.active",
    "ags.instance.started",
    "ags.instance.running",
    "ags.instance.paused",
    "ags.instance.resumed",
    "ags.snapshot.created",
    "ags.snapshot.deleted",
    "ags.instance.stopped",
    "ags.tool.deleted",
]


def events_of(run_id, last):
    related = {"id": [f"prefect.flow-run.{run_id}"], "role": ["owner"]}
    wanted = {"filter": {"event": {"prefix": ["ags."]}, "related": related, "order": "ASC"}, "limit": 50}
    found = []
    with get_client(sync_client=True) as client:
        for _ in range(100):
            found = client._client.post("/events/filter", json=wanted).json()["events"]
            if any(one["event"] == last for one in found):
                break
            time.sleep(0.2)
    return found


@flow
def life(config):
    with sandbox_session(TOOL, config=config) as sandbox:
        pause_instance(sandbox.instance, config=config)
        resume_instance(sandbox.instance, config=config)
        delete_snapshot(create_snapshot(sandbox.instance, "told", config=config), config=config)
        return str(FlowRunContext.get().flow_run.id), sandbox.instance.id


def test_each_step_of_a_sandbox_is_an_event_with_its_run_and_its_tool(ags_config, prefect_server):
    run_id, instance = life(ags_config)
    events = events_of(run_id, EXPECTED[-1])
    assert [one["event"] for one in events] == EXPECTED
    for event in events:
        roles = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
        assert roles["owner"] == f"prefect.flow-run.{run_id}"
        if event["event"].startswith("ags.instance."):
            assert event["resource"]["prefect.resource.id"] == f"ags.instance.{instance}"
            assert roles["tool"].startswith("ags.tool.told-")


def test_a_batch_emits_events_of_its_sandboxes(ags_config, prefect_server):
    state = run_batch(["a"], "true", tool="base", config=ags_config, return_state=True)
    events = events_of(str(state.state_details.flow_run_id), "ags.instance.stopped")
    told = [one["event"] for one in events if one["event"].startswith("ags.instance.")]
    assert told == ["ags.instance.started", "ags.instance.stopped"]


def test_outside_of_flows_no_event_is_emitted(monkeypatch):
    monkeypatch.setattr("ags_flows.run.events.emit_event", lambda **_: pytest.fail("an event"))
    tell_instance("started", "some-instance")
    with acting_as(Execution(owner=Owner("run-1"))):
        tell_instance("started", "some-instance")


def test_requests_are_spans_with_their_region_and_their_errors(ags_config, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.run("true")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"ags.StartSandboxInstance", "ags.StopSandboxInstance", "ags.exec"} <= set(spans)
    started = spans["ags.StartSandboxInstance"]
    assert started.kind is trace.SpanKind.CLIENT
    assert started.attributes["ags.region"] == ags_config.region
    assert spans["ags.exec"].attributes["ags.instance"] == sandbox.instance.id
    exporter.clear()
    with pytest.raises(Exception, match="nowhere"), sandbox_session("nowhere", config=ags_config):
        pass
    failed = exporter.get_finished_spans()[0]
    assert not failed.status.is_ok and failed.events[0].name == "exception"


def test_a_span_has_no_command_no_output_and_no_message(ags_config, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with sandbox_session("base", config=ags_config) as sandbox:
        for durable in (True, False):
            with pytest.raises(CommandTimeoutError):
                sandbox.run("echo shown; sleep 30; : private", timeout=2, durable=durable)
    spans = exporter.get_finished_spans()
    failed = [span for span in spans if span.name == "ags.exec"]
    assert [span.status.description for span in failed] == ["CommandTimeoutError"] * 2
    assert failed[0].events[0].attributes == {"exception.type": "ags_flows.errors.CommandTimeoutError"}
    text = "".join(span.to_json() for span in spans)
    assert "private" not in text and "shown" not in text
