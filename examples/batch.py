"""A batch: many parts of one job, a few sandboxes at a time, one report.

python examples/batch.py
"""

from __future__ import annotations

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from ags_flows import sandbox_session
from ags_flows.flows import stop_sandboxes
from ags_flows.models import ToolSpec
from ags_flows.tasks import ensure_tool

TOOL = ToolSpec(name="batch", image="python:3.11")
COUNT = """
import sys

first, last = map(int, sys.argv[1:])
print(sum(n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1)) for n in range(first, last)))
"""


@task
def primes(start: int, size: int) -> int:
    """Count the primes of one part in a separate sandbox."""
    # Parts run in any order: the name distinguishes them, also after a retry.
    with sandbox_session(TOOL.name, step=f"from-{start}") as sandbox:
        sandbox.write("count.py", COUNT)
        return int(sandbox.run(f"python3 count.py {start} {start + size}", timeout=300, check=True).stdout)


@flow(on_cancellation=[stop_sandboxes], task_runner=ThreadPoolTaskRunner(max_workers=4), retries=2, log_prints=True)
def batch(parts: int = 6, size: int = 1000) -> int:
    """Count the primes below `parts` times `size`."""
    ensure_tool(TOOL)
    counted = primes.map([part * size for part in range(parts)], size).result()
    print(f"{sum(counted)} primes below {parts * size}")
    return sum(counted)


if __name__ == "__main__":
    batch()
