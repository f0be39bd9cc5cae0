"""What instances that have ended cost: ten thousand of them in one emulator."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil

from bench.figure import Figure
from bench.sandbox import running_emulator_exports

INSTANCES = 10_000
WARM = 200
THREADS = 6


def figures() -> Iterator[Figure]:
    """Create and end instances by the E2B API of an emulator in a separate process."""
    with running_emulator_exports("--quiet") as (exports, pid):
        headers = {"X-API-KEY": exports["E2B_API_KEY"]}
        with httpx.Client(base_url=exports["E2B_API_URL"], headers=headers, timeout=120, trust_env=False) as client:

            def one(number: int) -> None:
                made = client.post("/sandboxes", json={"templateID": "base", "metadata": {"number": str(number)}})
                client.delete(f"/sandboxes/{made.json()['sandboxID']}").raise_for_status()

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(one, range(WARM)))
                before = psutil.Process(pid).memory_info().rss
                list(pool.map(one, range(INSTANCES)))
            grown = psutil.Process(pid).memory_info().rss - before
            yield Figure(f"{INSTANCES:,} instances created and ended: memory gained", grown / 1e6, "MB", 20.0)
            overview = len(client.get("/_emulator").content)
            yield Figure("size of GET /_emulator after them", overview / 1e3, "kB", 100.0)
