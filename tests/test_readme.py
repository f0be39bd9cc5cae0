"""What the README shows, executed as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def block(words):
    return next(text for text in BLOCKS if words in text)


@pytest.fixture
def execute(ags_emulator, prefect_server, tmp_path):
    def execute(code, *arguments):
        (tmp_path / "sample.py").write_text(code)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            **ags_emulator.environment,
        }
        command = [sys.executable, *arguments, "sample.py"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return execute


@pytest.mark.timeout(300)
def test_the_ten_lines_against_the_emulator_work(execute, tmp_path):
    done = execute(block("sum(range(10))"))
    assert done.returncode == 0, done.stderr
    assert re.match(r"0 [0-9a-f]{32}\n", done.stdout)
    assert "download: sum.txt" in done.stdout
    assert (tmp_path / "sum.txt").read_text() == "45\n"


@pytest.mark.timeout(300)
def test_the_flow_of_the_readme_works(execute, tmp_path):
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "day-1.csv").write_text("country,amount\nCN,5\n")
    (tmp_path / "etl.py").write_text("import os; open('report.csv', 'w').write(','.join(os.listdir('orders')))")
    done = execute(block("def nightly"))
    assert done.returncode == 0, done.stderr
    assert "| day-1.csv" in done.stderr
    assert (tmp_path / "report.csv").read_text() == "day-1.csv"


@pytest.mark.timeout(300)
def test_the_test_works(execute):
    done = execute(block("def test_the_job_writes_its_report"), "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_configuration_of_the_real_cloud_is_valid_python():
    compile(block('.save("production")'), "README.md", "exec")


def test_every_path_that_is_named_is_there():
    for path in re.findall(r"`(ags_flows/[\w/.]+)`", README.read_text()):
        assert (README.parent / path).exists(), path


def skeleton(text):
    """What must be the same in every language: headings by level, code, tables by rows, links by target."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "code": re.findall(r"```.*?```", text, re.DOTALL),
        "rows": len(re.findall(r"^\|", prose, re.MULTILINE)),
        "bullets": len(re.findall(r"^- ", prose, re.MULTILINE)),
        "links": [target for target in re.findall(r"\]\(([^)]+)\)", prose) if not target.startswith("README")],
        "names": sorted(set(re.findall(r"`([^`]+)`", prose))),
    }


def test_the_chinese_readme_has_the_same_sections_code_and_names():
    assert skeleton((README.parent / "README_zh.md").read_text()) == skeleton(README.read_text())
