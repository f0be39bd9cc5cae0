"""`make bench`: print every figure with its limit; exit 1 when one is not kept.

To measure some of them: `.venv/bin/python -m bench imports commands`.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from bench.alone import measured_alone

AREAS = (
    "imports",
    "claims",
    "commands",
    "following",
    "control_plane",
    "surface",
    "transfers",
    "emulator",
    "batch",
    "functions",
    "worker",
    "reaping",
    "swerex",
    "swebench",
)


def main(areas: list[str]) -> int:
    """Measure the areas and return an exit code."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title="Figures, measured side by side in one run")
    for name, justify in (("figure", "left"), ("value", "right"), ("limit", "right"), ("detail", "left"), ("", "left")):
        table.add_column(name, justify=justify)
    kept = True
    for area in areas or AREAS:
        with console.status(f"Measuring {area}"):
            for figure in measured_alone(area):
                sign = ">=" if figure.at_least else "<="
                verdict = "[green]kept[/]" if figure.ok else "[red]NOT KEPT[/]"
                value, limit = f"{figure.value:.2f} {figure.unit}", f"{sign} {figure.limit:g} {figure.unit}"
                table.add_row(figure.name, value, limit, figure.detail, verdict)
                kept &= figure.ok
    console.print(table)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
