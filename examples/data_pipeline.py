"""A data pipeline with one step in a sandbox: orders in, a report out.

Where AGS is, and its keys, come from the environment (see the README):

    python examples/data_pipeline.py
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from prefect import flow, task

from ags_flows import sandbox_session
from ags_flows.flows import stop_sandboxes
from ags_flows.models import ToolSpec

SUMMARISE = """
import csv, json, pathlib

totals = {}
for file in sorted(pathlib.Path("orders").glob("*.csv")):
    for order in csv.DictReader(file.open()):
        totals[order["country"]] = round(totals.get(order["country"], 0) + float(order["amount"]), 2)
    print("summarised", file.name)
pathlib.Path("report.json").write_text(json.dumps(totals, sort_keys=True))
"""


@task
def extract(directory: Path, days: int) -> Path:
    """Write one file of orders a day, as an export of a shop would."""
    directory.mkdir(parents=True, exist_ok=True)
    dice = random.Random(7)
    for day in range(1, days + 1):
        with (directory / f"day-{day:02}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["country", "amount"])
            writer.writerows([dice.choice(["CN", "DE", "FR"]), f"{dice.uniform(1, 90):.2f}"] for _ in range(200))
    return directory


@task
def load(report: Path) -> dict[str, float]:
    """Put the report where it belongs."""
    totals: dict[str, float] = json.loads(report.read_text())
    return totals


@flow(on_cancellation=[stop_sandboxes], retries=2, log_prints=True)
def pipeline(directory: Path = Path("pipeline"), days: int = 5) -> dict[str, float]:
    """Extract here, transform in a sandbox, load here."""
    orders = extract(directory / "orders", days)
    with sandbox_session(ToolSpec(name="pipeline", image="python:3.11")) as sandbox:
        sandbox.upload(orders, "orders")
        sandbox.write("summarise.py", SUMMARISE)
        sandbox.run("python3 summarise.py", timeout=600, check=True)
        sandbox.download("report.json", directory / "report.json")
    totals = load(directory / "report.json")
    print("totals:", totals)
    return totals


if __name__ == "__main__":
    pipeline()
