"""Every public function shows an example, and every example runs."""

import inspect
import re
import textwrap

import prefect
import pytest

import ags_flows
from ags_flows import flows, models, tasks, testing
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.ownership import LIVE

SAMPLE = re.compile(r"^ *```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PLACES = (ags_flows, tasks, flows, testing)
UNEXECUTED = {"ags_flows.AGSFlowsError", "ags_flows.AsyncSandboxSession", "ags_flows.SandboxSession"}
"""An error is raised and a session is given: neither is called. Nor are the fixtures `ags_...`."""


def documented():
    """Every public function, task and class, and the methods of the facade, by its full name."""
    for place in PLACES:
        for name in place.__all__:
            thing = getattr(place, name)
            yield f"{place.__name__}.{name}", inspect.getdoc(getattr(thing, "fn", thing)) or ""
    for name, method in inspect.getmembers(ags_flows.AGSRuntime, inspect.isfunction):
        if not name.startswith("_"):
            yield f"ags_flows.AGSRuntime.{name}", inspect.getdoc(method) or ""


DOCUMENTED = {name: text for name, text in documented() if name not in UNEXECUTED and ".testing.ags_" not in name}
EXAMPLES = {name: textwrap.dedent("\n".join(SAMPLE.findall(text))) for name, text in DOCUMENTED.items()}


@pytest.fixture
def names(tmp_path, monkeypatch, ags_emulator, ags_config, prefect_server, evaluation_files):
    """What examples take for granted: the public names, an environment that leads to AGS, and a few files."""
    monkeypatch.chdir(tmp_path)
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "etl.py").write_text("print('done')")
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "day-1.csv").write_text("country,amount\nCN,5\n")
    return {name: getattr(place, name) for place in (*PLACES, models) for name in place.__all__} | {
        "flow": prefect.flow
    }


def test_every_public_function_shows_an_example():
    assert [name for name, example in EXAMPLES.items() if not example] == []


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example])
def test_the_example_runs(name, names, ags_config):
    # Prefect's convention for the name of a block, which its own rules for names refuse.
    code = compile(EXAMPLES[name].replace("BLOCK_NAME", "example"), f"the example of {name}", "exec")
    control = ags_config.control_plane()
    if "instance" in code.co_names:
        tool = "code-interpreter-v1" if "code" in name else "base"
        started = control.start_instance(tool=tool)
        names["instance"] = wait_instance_running(control, started.id, timeout=60)

    @prefect.flow
    def example():
        exec(code, names)

    # Tasks belong into a flow.
    example() if name.startswith("ags_flows.tasks") else exec(code, names)
    if "instance" in names:
        control.stop_instance(names["instance"].id)
    assert not [one.id for one in control.list_instances() if one.status in LIVE]
