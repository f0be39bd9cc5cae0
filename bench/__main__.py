"""`make bench`: print each area's figures with their limits when it is done; exit 1 if a limit is not kept.

`make bench AREAS="imports claims"` measures some areas. The figures are also written to `.bench/figures.json`.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.alone import measured_alone
from bench.figure import Figure

AREAS = (
    *("imports", "claims", "commands", "following", "control_plane", "surface", "transfers", "emulator"),
    *("tls", "retention", "cells", "verify", "batch", "functions", "worker", "reaping", "swerex", "swebench"),
)
RESULTS = Path(".bench/figures.json")


def main(names: list[str]) -> int:
    """Measure areas, one after another. An area that fails does not keep the others from being measured.

    Returns:
        An exit code: 1 if an area failed or a limit is not kept, 2 for an unknown area.
    """
    if unknown := set(names) - set(AREAS):
        print(f"Unknown areas: {', '.join(sorted(unknown))}. Known: {' '.join(AREAS)}.", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 120)
    results: dict[str, list[dict[str, object]]] = {}
    failed, missed = [], 0
    for area in names or AREAS:
        try:
            with console.status(f"Measuring {area}"):
                figures = measured_alone(area)
        except Exception:  # noqa: BLE001 - the other areas are measured nevertheless
            traceback.print_exc()
            failed.append(area)
            continue
        console.print(table(area, figures))
        results[area] = [{**asdict(figure), "kept": figure.ok} for figure in figures]
        missed += sum(not figure.ok for figure in figures)
        save(results, failed)
    count = sum(map(len, results.values()))
    console.print(f"{count - missed} of {count} limits kept. Figures: {RESULTS}")
    if failed:
        console.print(f"[red]Areas that failed: {', '.join(failed)}[/]")
    return 1 if failed or missed else 0


def table(area: str, figures: list[Figure]) -> Table:
    """Return an area's figures as a table."""
    shown = Table(title=area, title_justify="left")
    for name, justify in (("figure", "left"), ("value", "right"), ("limit", "right"), ("detail", "left"), ("", "left")):
        shown.add_column(name, justify=justify)
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        verdict = "[green]kept[/]" if figure.ok else "[red]NOT KEPT[/]"
        value, limit = f"{figure.value:.2f} {figure.unit}", f"{sign} {figure.limit:g} {figure.unit}"
        shown.add_row(figure.name, value, limit, figure.detail, verdict)
    return shown


def save(results: dict[str, list[dict[str, object]]], failed: list[str]) -> None:
    """Write what was measured so far."""
    RESULTS.parent.mkdir(exist_ok=True)
    measured = {"measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "areas": results}
    RESULTS.write_text(json.dumps({**measured, "failed": failed}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
