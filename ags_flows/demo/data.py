"""The demo's input: a CSV file of orders, identical on every machine."""

from __future__ import annotations

import csv
import random
import shutil
from datetime import date, timedelta
from pathlib import Path

ROWS = 120_000
REGIONS = ("Guangzhou", "Shanghai", "Beijing", "Chongqing", "Singapore")
PRODUCTS = {"tea": 1_850, "silk": 12_400, "porcelain": 7_900, "paper": 450, "ink": 990, "compass": 3_300}
"""Product name to list price in cents."""

_FIRST_DAY = date(2026, 1, 1)
_DAYS = 181
_JOB = Path(__file__).with_name("job.py")


def write_data(directory: Path, rows: int = ROWS) -> Path:
    """Write `orders.csv` and the job's script to a directory, and return the directory.

    Each order has a day, region, product, quantity, and unit price in cents after a discount of up to 25 %.
    """
    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(2026)
    names = list(PRODUCTS)
    with (directory / "orders.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["order", "day", "region", "product", "quantity", "unit_price_cents"])
        for number in range(1, rows + 1):
            product = names[draw.randrange(len(names))]
            writer.writerow(
                [
                    number,
                    _FIRST_DAY + timedelta(days=draw.randrange(_DAYS)),
                    REGIONS[draw.randrange(len(REGIONS))],
                    product,
                    draw.randrange(1, 21),
                    PRODUCTS[product] * draw.randrange(75, 101) // 100,
                ]
            )
    shutil.copyfile(_JOB, directory / "job.py")
    return directory
