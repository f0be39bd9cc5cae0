"""The demo as a user runs it: one command, a correct report, and no process left running."""

import csv
import json
import os
import subprocess
import sys
from decimal import Decimal

import psutil
import pytest

from ags_flows.demo.data import ROWS


def processes_of(marker):
    """Return the processes whose command line has a path."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and marker in " ".join(process.info["cmdline"] or []):
            found.append(process.info)
    return found


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_demo_writes_a_correct_report_and_leaves_nothing_running(tmp_path):
    directory = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "ags_flows.cli", "demo", "--directory", str(directory)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (directory / "data" / "orders.csv").open() as file:
        orders = list(csv.DictReader(file))
    assert len(orders) == ROWS >= 100_000
    total = sum(Decimal(row["quantity"]) * Decimal(row["unit_price_cents"]) for row in orders) / 100
    tea = (
        sum(Decimal(row["quantity"]) * Decimal(row["unit_price_cents"]) for row in orders if row["product"] == "tea")
        / 100
    )
    report = (directory / "report.md").read_text()
    assert f"{ROWS:,} orders, revenue {total:,.2f}." in report
    assert f"| tea | {tea:,.2f} | {tea / total:.1%} |" in report
    steps = [step["name"].split(":")[0] for step in json.loads((directory / "run.json").read_text())["steps"]]
    assert steps == [
        "create tool",
        "wait for tool",
        "start instance",
        "wait for instance",
        "upload",
        "exec",
        "download",
        "cleanup",
    ]
    assert "120,000 orders read" in done.stdout
    assert "http://127.0.0.1:" in done.stdout
    assert processes_of(str(directory)) == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_demo_of_the_worker_runs_flows_in_sandboxes_and_leaves_nothing_running(tmp_path):
    directory = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "ags_flows.cli", "demo", "--worker", "--directory", str(directory)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (directory / "code" / "orders.csv").open() as file:
        orders = [row for row in csv.DictReader(file) if row["product"] == "tea"]
    tea = sum(Decimal(row["quantity"]) * Decimal(row["unit_price_cents"]) for row in orders) / 100
    assert f"tea: revenue {tea:,.2f}, added up on " in done.stdout
    assert "3 of 3 flow runs completed; sandboxes left: 0" in done.stdout
    assert processes_of(str(directory)) == []


def test_a_directory_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, "-m", "ags_flows.cli", "demo", "--directory", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "is not empty" in done.stdout
    assert (tmp_path / "thesis.txt").exists()
