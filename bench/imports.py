"""What starting costs: `import ags_flows` and the command line against `import prefect` and `prefect version`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

from ags_flows.testing import running_emulator
from bench.figure import Figure, side_by_side

ROUNDS = 7


def figures() -> Iterator[Figure]:
    """Measure whole interpreters in turns, with byte code as an installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def python(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
        )

    blocks = "from ags_flows import AGSConfig, SandboxJob"
    # Prefect makes a JSON schema of each block type when its class is defined: half of what the blocks cost.
    for name, code, limit in (("import ags_flows", "import ags_flows", 1.10), (blocks, blocks, 1.20)):
        ours, theirs = side_by_side(python("-c", code), python("-c", "import prefect"), ROUNDS, warm=1)
        detail = f"{ours:.2f} s / {theirs:.2f} s"
        yield Figure(f"{name} / import prefect", ours / theirs, "x", limit, detail=detail)
    yield Figure(
        "ags-flows --help", min(_cpu(python("-m", "ags_flows.cli", "--help")) for _ in range(ROUNDS)), "s", 0.5
    )
    with running_emulator() as emulator:
        environment.update(emulator.environment)
        ps, version = python("-m", "ags_flows.cli", "ps"), python("-m", "prefect", "version")
        ours, theirs = side_by_side(ps, version, ROUNDS, warm=1)
    detail = f"{ours:.2f} s / {theirs:.2f} s"
    yield Figure("ags-flows ps / prefect version", ours / theirs, "x", 0.8, detail=detail)


def _cpu(action: Callable[[], object]) -> float:
    """Return the seconds of CPU that the child processes of an action take."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    action()
    return used() - before
