"""What sandboxes used, from the records of an account of the emulator."""

import csv
import time
from datetime import datetime, timedelta, timezone

import pytest
from prefect import flow

from ags_flows.cloud.wire import instance_from_wire, tool_from_wire
from ags_flows.errors import ConfigurationError
from ags_flows.flows import usage_report
from ags_flows.models import CustomConfiguration, Instance, Prices, Resources, Tool, ToolSpec
from ags_flows.tasks import ensure_tool, start_instance, stop_instance, wait_instance_running
from ags_flows.usage import Ledger, seconds_of

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def instance(status="RUNNING", created=-60, updated=0, **more):
    times = {
        "created_at": NOON + timedelta(minutes=created),
        "updated_at": NOON + timedelta(minutes=updated),
    }
    return Instance(id="i", tool_id="t", tool_name="etl", status=status, **times, **more)


@pytest.mark.parametrize(
    ("record", "minutes"),
    [
        (instance(), 60),
        (instance(updated=-30), 60),
        (instance("STOPPED", updated=-30), 30),
        (instance("PAUSED", updated=-50), 10),
        (instance("STOPPED", created=-500, updated=-200), 0),
        (instance("STOPPED", created=-500, updated=-110), 10),
        (instance(created=10), 0),
    ],
)
def test_an_instance_counts_until_its_end_and_within_the_span(record, minutes):
    assert seconds_of(record, NOON - timedelta(hours=2), NOON) == minutes * 60


@pytest.mark.parametrize(
    ("cpu", "memory", "sizes"),
    [("500m", "512Mi", (0.5, 0.5)), ("2", "4Gi", (2, 4)), ("", None, (None, None)), ("many", "some", (None, None))],
)
def test_sizes_are_read_in_all_units(cpu, memory, sizes):
    fields = {"Resources": {"CPU": cpu, "Memory": memory}}
    tool = tool_from_wire({"ToolId": "t", "CustomConfiguration": fields})
    one = instance_from_wire({"InstanceId": "i", "CustomConfiguration": fields})
    assert (tool.cpu_cores, tool.memory_gib) == (one.cpu_cores, one.memory_gib) == sizes


def test_sums_are_by_tool_flow_and_deployment_with_their_costs():
    tools = {"t": Tool(id="t", name="etl", status="ACTIVE", cpu_cores=2, memory_gib=4)}
    ledger = Ledger(NOON - timedelta(hours=2), NOON, tools)
    ledger.add(
        [
            instance(metadata={"flow-id": "f1", "deployment": "d1"}),
            instance(metadata={"flow-id": "f1"}, cpu_cores=4, memory_gib=1),
            instance().model_copy(update={"tool_id": "gone", "tool_name": "gone"}),
        ]
    )
    prices = Prices(cpu_hour=1, memory_gib_hour=0.5, sandbox_hour=10)
    usages = {(usage.by, usage.name): usage for usage in ledger.usages({"f1": "nightly"}, prices)}
    nightly = usages["flow", "nightly"]
    assert (nightly.sandboxes, nightly.cpu_hours, nightly.memory_gib_hours, nightly.cost) == (2, 6, 5, 28.5)
    assert usages["tool", "gone"].unsized == 1 and usages["tool", "gone"].cost == 10
    assert usages["deployment", "(no deployment)"].sandboxes == 2
    assert ledger.total.usage(None, "all", Prices()).cost is None


def test_a_report_of_last_night_names_flows_and_is_also_csv(ags_config, prefect_server, tmp_path):
    @flow(name="nightly-load")
    def nightly_load():
        tool = ensure_tool(ToolSpec(name="sized", image="python:3.11"), config=ags_config)
        larger = CustomConfiguration(resources=Resources(cpu="4", memory="8Gi"))
        started = [start_instance(tool, custom=custom, config=ags_config) for custom in (None, larger)]
        for one in started:
            wait_instance_running(one, config=ags_config)
        time.sleep(1.1)
        for one in started:
            stop_instance(one, config=ags_config)

    nightly_load()
    report = usage_report(
        hours=1, prices=Prices(cpu_hour=3600), csv_file=str(tmp_path / "new" / "usage.csv"), config=ags_config
    )
    usage = next(one for one in report.usages if one.by == "flow" and one.name == "nightly-load")
    assert usage.sandboxes == 2 and usage.unsized == 0
    assert 2 <= usage.seconds < 60
    # Two cores of the configuration's default beside four, for about the same time.
    assert usage.cpu_hours * 3600 == pytest.approx(usage.cost)
    assert 1 < usage.cpu_hours * 3600 / usage.seconds < 4
    with pytest.raises(ConfigurationError, match="csv_file: /proc/nowhere/usage.csv cannot be written"):
        usage_report(csv_file="/proc/nowhere/usage.csv", config=ags_config)
    rows = list(csv.DictReader((tmp_path / "new" / "usage.csv").read_text().splitlines()))
    assert [row["name"] for row in rows if row["by"] == "tool"] == ["sized"]
    assert rows[-1]["by"] == "total" and int(rows[-1]["sandboxes"]) == report.total.sandboxes == 2
