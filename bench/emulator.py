"""What a sandbox of the emulator costs: its start, a command in it, its memory, many concurrent commands."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
from e2b import ApiParams, Sandbox

from bench.figure import Figure, seconds
from bench.sandbox import running_emulator_exports

LIVE = 200
AT_ONCE = 1_000
THREADS = 64


def figures() -> Iterator[Figure]:
    """Use the real e2b SDK over HTTP against an emulator in a separate process."""
    with running_emulator_exports() as (exports, pid):
        options = ApiParams(
            api_key=exports["E2B_API_KEY"], api_url=exports["E2B_API_URL"], sandbox_url=exports["E2B_SANDBOX_URL"]
        )
        for _ in range(3):
            Sandbox.create("base", **options).kill()
        made: list[Sandbox] = []
        starts = [seconds(lambda: made.append(Sandbox.create("base", **options))) for _ in range(30)]
        yield Figure("start of an instance, median", statistics.median(starts) * 1000, "ms", 30.0)
        sandbox = made[0]
        for _ in range(5):
            sandbox.commands.run("true")
        commands = [seconds(lambda: sandbox.commands.run("true")) for _ in range(100)]
        yield Figure("`true` in a sandbox, median", statistics.median(commands) * 1000, "ms", 8.0)

        with ThreadPoolExecutor(8) as pool:
            made += pool.map(lambda _: Sandbox.create("base", **options), range(LIVE - len(made)))
        yield Figure(f"{LIVE} live sandboxes: memory of all processes", _memory(pid) / 1e6, "MB", 200.0)
        with ThreadPoolExecutor(THREADS) as pool:
            told = list(pool.map(lambda number: _echo(made[number % LIVE], number), range(AT_ONCE)))
        yield Figure(f"{AT_ONCE:,} concurrent short commands: right ones", sum(told), "", AT_ONCE, True)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: one.kill(), made))
        left = len(psutil.Process(pid).children(recursive=True))
        yield Figure("processes left after all were killed", left, "", 0)


def _echo(sandbox: Sandbox, number: int) -> bool:
    return sandbox.commands.run(f"echo {number}").stdout == f"{number}\n"


def _memory(pid: int) -> int:
    """Return the proportional share of memory of a process and of all that it started, in bytes."""
    emulator = psutil.Process(pid)
    total = 0
    for process in [emulator, *emulator.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, OSError):
            continue
    return total
