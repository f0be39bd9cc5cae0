"""A step that begins at the moment at which its session is interrupted ends as those do that wait already."""

import importlib
import time
from contextlib import contextmanager

import pytest

from ags_flows.errors import AGSFlowsError
from ags_flows.session import Opening

MODULE = importlib.import_module("ags_flows.session.session")


@pytest.mark.parametrize(
    ("tool", "step"),
    [
        ("base", lambda sandbox: sandbox.run("sleep 60")),
        ("base", lambda sandbox: sandbox.run("sleep 60", durable=False)),
        ("base", lambda sandbox: sandbox.wait(sandbox.start("sleep 60"))),
        ("code-interpreter-v1", lambda sandbox: sandbox.run_code("import time; time.sleep(60)")),
    ],
    ids=["command", "direct command", "wait", "cell"],
)
def test_a_step_that_begins_while_its_session_is_interrupted_ends(ags_config, monkeypatch, tool, step):
    opening, timed = Opening(ags_config, [], 600, {}, False), MODULE.timed

    @contextmanager
    def interrupted(steps, name):
        # The step has looked whether the session goes on, and has no data plane yet.
        opening.interrupt()
        with timed(steps, name) as fail:
            yield fail

    sandbox = opening.open(tool, None, None, "")
    try:
        monkeypatch.setattr(MODULE, "timed", interrupted)
        began = time.monotonic()
        with pytest.raises(AGSFlowsError):
            step(sandbox)
        assert time.monotonic() - began < 30
    finally:
        opening.close("cancelled", "stop")
