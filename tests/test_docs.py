"""The samples of the documentation, executed as they stand there."""

import linecache
import re
import time
from pathlib import Path

import pytest

from ags_flows.ownership import LIVE

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
SAMPLE = re.compile(r"^```python( noexec)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
ETL = "open('report.csv', 'w').write('country,amount\\nCN,12\\n'); print('done')"


@pytest.fixture
def workplace(tmp_path, monkeypatch, ags_emulator, evaluation_files):
    """A directory with the files that samples speak of, and an environment that points to the emulator."""
    monkeypatch.chdir(tmp_path)
    for name, value in ags_emulator.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "day-1.csv").write_text("country,amount\nCN,5\nDE,7\n")
    (tmp_path / "etl.py").write_text(ETL)
    return tmp_path


def nothing_is_left(control):
    """Return True if all sandboxes have ended; those of functions are stopped a moment after their flow."""
    deadline = time.monotonic() + 15
    while any(one.status in LIVE for one in control.list_instances()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# Prefect leaves a socket to the garbage collector when the event loop of an async flow ends.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if SAMPLE.search(page.read_text())], ids=lambda page: page.stem
)
def test_the_samples_of_a_page_run(page, workplace, prefect_server, ags_emulator, ags_config):
    names = {"__name__": "samples"}
    for number, (unexecuted, code) in enumerate(SAMPLE.findall(page.read_text()), 1):
        place = f"{page.name}, sample {number}"
        # Functions that are sent to a sandbox are found by their source.
        linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
        compiled = compile(code, place, "exec")
        if not unexecuted:
            exec(compiled, names)
    for sample in [value for name, value in names.items() if name.startswith("test_")]:
        sample(ags_emulator, ags_config)
    assert nothing_is_left(ags_config.control_plane())


def test_every_link_leads_somewhere():
    for page in [*PAGES, *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_found_from_the_readme():
    readme = (DOCS.parent / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in readme, page.name
