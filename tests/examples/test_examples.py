"""Notebooks and scripts of `examples/`, executed as users execute them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from prefect.settings import PREFECT_API_URL

from ags_flows.ownership import LIVE

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = ["bare_sdk.ipynb", "with_ags_flows.ipynb"]


def outputs(notebook):
    """What each cell of a notebook shows, as text."""
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            shown.append(output.get("text") or data.get("image/svg+xml") or data.get("text/plain") or str(output))
    return shown


def live(config):
    return [instance.id for instance in config.control_plane().list_instances() if instance.status in LIVE]


def headings(notebook):
    return re.findall(r"^## (\d\. .*)$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE)


@pytest.fixture
def execute():
    spec = importlib.util.spec_from_file_location("execute", EXAMPLES / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.execute


@pytest.fixture
def environment(ags_emulator, tmp_path):
    own = {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect"), "IPYTHONDIR": str(tmp_path / "ipython")}
    return {**own, **ags_emulator.environment}


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's emulator has no other users to give")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [pytest.param(NOTEBOOKS[0], marks=pytest.mark.long), NOTEBOOKS[1]])
def test_a_notebook_runs_and_shows_what_is_committed(name, execute, environment, ags_config, tmp_path):
    fresh = execute(EXAMPLES / name, environment, tmp_path)
    assert outputs(fresh) == outputs(nbformat.read(EXAMPLES / name, as_version=4))
    assert not live(ags_config)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_contain_no_secrets(name):
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = "\n".join(outputs(notebook))
    for word in ("Traceback", "Warning", "/home/", "/root", "/tmp/", "sit_", "AKID", "127.0.0.1"):
        assert word not in shown, word
    assert not [one for cell in code for one in cell.outputs if one.get("name") == "stderr"]


def test_both_notebooks_go_the_same_way():
    bare, wrapped = (headings(nbformat.read(EXAMPLES / name, as_version=4)) for name in NOTEBOOKS)
    assert len(bare) == 9
    assert bare[:-1] == wrapped[:-1]


@pytest.fixture
def run(environment, prefect_server, tmp_path):
    def run(script):
        known = {"PATH": os.environ["PATH"], "PREFECT_API_URL": PREFECT_API_URL.value(), **environment}
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", str(script)],
            cwd=tmp_path,
            env=known,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("data_pipeline.py", "totals: {'CN': "),
        pytest.param(
            "generated_code.py", "How many ways are there to draw 6 of 49? 13983816 (attempt 2)", marks=pytest.mark.long
        ),
        ("batch.py", "783 primes below 6000"),
        ("functions.py", "A ROSE IS A ROSE"),
        pytest.param("swerex_shell.py", "hello from /tmp/work", marks=pytest.mark.long),
    ],
)
def test_a_script_does_its_work_and_leaves_nothing_running(script, told, run, ags_config):
    done = run(EXAMPLES / script)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout + done.stderr
    assert not live(ags_config)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_flow_that_the_notebook_writes_works(run, tmp_path):
    cells = {
        cell.source.split("\n", 1)[0]: cell.source
        for cell in nbformat.read(EXAMPLES / "with_ags_flows.ipynb", as_version=4).cells
    }
    (tmp_path / "job" / "sales").mkdir(parents=True)
    (tmp_path / "job" / "sales" / "north.csv").write_text("item,amount\npears,12\n")
    for name in ("job/report.py", "nightly.py"):
        (tmp_path / name).write_text(cells[f"%%writefile {name}"].split("\n", 1)[1])
    done = run("nightly.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "totals.csv").read_text() == "item,amount\npears,12\n"
