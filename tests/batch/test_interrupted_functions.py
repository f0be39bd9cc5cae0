"""Functions over items in a process that gets a Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ags_flows.ownership import LIVE

SCRIPT = """
import sys
import time

from prefect import flow
from ags_flows.flows import run_items

begun = open(sys.argv[1], "a", buffering=1)

def work(sandbox, item):
    begun.write(f"{item}\\n")
    if sys.argv[3] == "computes":
        until = time.monotonic() + 4
        while time.monotonic() < until:
            time.sleep(0.01)
    else:
        sandbox.run("sleep 60")

def batch():
    run_items(list(range(40)), work, tool="base", sandboxes=2, results=sys.argv[2])

(flow(batch) if sys.argv[4] == "a flow" else batch)()
"""


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("what", "where"), [("computes", "a program"), pytest.param("waits", "a flow", marks=pytest.mark.long)]
)
def test_ctrl_c_begins_no_function_any_more_and_leaves_no_sandbox(ags_emulator, ags_config, tmp_path, what, where):
    environment = {**os.environ, **ags_emulator.environment}
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "begun"), str(tmp_path / "out"), what, where]
    process = subprocess.Popen(arguments, env=environment)
    begun = tmp_path / "begun"
    deadline = time.monotonic() + 60
    while not begun.exists() or len(begun.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert len(begun.read_text().split()) == 2
    assert not [one for one in ags_config.control_plane().list_instances() if one.status in LIVE]
