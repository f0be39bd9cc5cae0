"""`import ags_flows` against `import prefect`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from bench.figure import Figure, side_by_side

ROUNDS = 7


def figures() -> Iterator[Figure]:
    """Measure whole interpreters in turns, with byte code as an installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def importing(module: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True)

    ours, theirs = side_by_side(lambda: importing("ags_flows"), lambda: importing("prefect"), ROUNDS, warm=1)
    yield Figure("import ags_flows / import prefect", ours / theirs, "x", 1.15, detail=f"{ours:.2f} s / {theirs:.2f} s")
