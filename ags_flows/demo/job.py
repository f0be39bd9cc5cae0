"""The job that the demo executes in the sandbox: a report on the orders. It needs only Python's standard library.

Usage: python3 job.py ORDERS_CSV REPORT_MD
"""

from __future__ import annotations

import csv
import sys
from collections import Counter

STEP = 30_000


def main(source: str, target: str) -> None:
    """Read the orders, print the progress, and write the report."""
    orders = 0
    by_region: Counter[str] = Counter()
    by_product: Counter[str] = Counter()
    by_month: Counter[str] = Counter()
    with open(source, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cents = int(row["quantity"]) * int(row["unit_price_cents"])
            by_region[row["region"]] += cents
            by_product[row["product"]] += cents
            by_month[row["day"][:7]] += cents
            orders += 1
            if orders % STEP == 0:
                print(f"{orders:,} orders read", flush=True)
    total = sum(by_region.values())
    lines = ["# Orders", "", f"{orders:,} orders, revenue {money(total)}.", ""]
    for title, counts in (("Region", by_region), ("Product", by_product), ("Month", by_month)):
        rows = sorted(counts.items()) if title == "Month" else counts.most_common()
        lines += [f"| {title} | Revenue | Share |", "|---|---:|---:|"]
        lines += [f"| {name} | {money(cents)} | {cents / total:.1%} |" for name, cents in rows]
        lines.append("")
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    print(f"report written to {target}", flush=True)


def money(cents: int) -> str:
    """Return an amount as text."""
    return f"{cents // 100:,}.{cents % 100:02d}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
