"""A script that calls functions in a flow and ends: nothing is left, and nothing is lost at its end."""

import os
import subprocess
import sys
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_URL

from ags_flows.ownership import LIVE
from ags_flows.tasks import list_instances

pytestmark = pytest.mark.usefixtures("prefect_server")

SCRIPT = """\
from prefect import flow

from ags_flows import in_sandbox


@in_sandbox(tool="base")
def one(number):
    return number


@flow
def twice():
    return one.map([1, 2]).result()


if __name__ == "__main__":
    print(twice())
"""


POOL = """\
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner

from ags_flows import in_sandbox


@in_sandbox(tool="base")
def one(number):
    return number


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def twice():
    return one.map([1, 2]).result()


if __name__ == "__main__":
    print(twice())
"""


def stopped():
    with get_client(sync_client=True) as client:
        page = client.read_events(EventFilter(event=EventNameFilter(name=["ags.instance.stopped"])), limit=50)
    return {event.resource.id.rpartition(".")[2] for event in page.events}


@pytest.mark.long
@pytest.mark.parametrize("script", [pytest.param(SCRIPT, id="threads"), pytest.param(POOL, id="processes")])
def test_the_end_of_a_script_stops_its_sandboxes_and_emits_that(ags_emulator, ags_config, tmp_path, script):
    ags_emulator.transition("tool.create", "at_once")
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, **ags_emulator.environment, "PREFECT_API_URL": PREFECT_API_URL.value()}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[1, 2]"), done.stderr
    assert "Traceback" not in done.stderr and "ERROR" not in done.stderr
    instances = list_instances.fn(config=ags_config)
    assert instances and not [one for one in instances if one.status in LIVE]
    deadline = time.monotonic() + 20
    while not {one.id for one in instances} <= stopped():
        assert time.monotonic() < deadline
        time.sleep(0.2)
