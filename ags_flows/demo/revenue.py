"""The flow that the demo of the worker executes in sandboxes: it needs Prefect and the file beside it."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

from prefect import flow, get_run_logger


@flow(name="revenue")
def revenue(product: str) -> None:
    """Add up the revenue of one product."""
    cents = 0
    with Path(__file__).with_name("orders.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["product"] == product:
                cents += int(row["quantity"]) * int(row["unit_price_cents"])
    get_run_logger().info("%s: revenue %s, added up on %s", product, f"{cents / 100:,.2f}", socket.gethostname())
