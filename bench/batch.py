"""Short items over many sandboxes: `run_batch`, threads with e2b, and a plain Prefect `.map` with e2b, side by side."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

import httpx
import psutil
from e2b import ApiParams, Sandbox
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from ags_flows import AGSConfig
from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.flows import run_batch, run_items
from bench.figure import Figure, seconds
from bench.reaping import config_of
from bench.sandbox import running_emulator_exports
from bench.transfers import watched

ITEMS, SANDBOXES, ROUNDS = 2000, 32, 2
MAPPED = 200
"""Items of the `.map`, which does some tens a second."""

MANY, MANY_SANDBOXES = 10_000, 64
DELAY = 0.05
COMMAND = 'echo "item $ITEM"'


def figures() -> Iterator[Figure]:
    """Run each in turns, and take the best round of each: what is in the way is noise."""
    with (
        running_emulator_exports() as (exports, _),
        tempfile.TemporaryDirectory(prefix="ags-bench-") as name,
        prefect_server(Path(name)) as (server, url),
    ):
        wait_for_prefect(server, url, Path(name))
        options = ApiParams(
            api_key=exports["E2B_API_KEY"], api_url=exports["E2B_API_URL"], sandbox_url=exports["E2B_SANDBOX_URL"]
        )
        config, bare = config_of(exports), threads(options)
        cpu: list[float] = []

        def ours() -> None:
            before = processor()
            report = run_batch(numbers(ITEMS), COMMAND, "base", sandboxes=SANDBOXES, results=fresh(name), config=config)
            cpu.append((processor() - before) * 1000 / ITEMS)
            assert report.succeeded == ITEMS, report

        # Prefect's default settings: a flow run waits up to a second for the thread of its heartbeats.
        with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
            mine, theirs = best_of((ours, bare))
            without = seconds(lambda: plainly(config, name))
            with delayed(exports["AGS_ENDPOINT"]):
                far, theirs_far = best_of((ours, bare))
            # Last: the server writes down the task runs of `.map` long after it has ended.
            plain = seconds(mapped(options)) * ITEMS / MAPPED
            before = psutil.Process().memory_info().rss
            _, growth = watched(lambda: many(config, name))
        title = f"run_batch of {ITEMS} items over {SANDBOXES} sandboxes"
        detail = (
            f"{ITEMS / mine:.0f}/s : {ITEMS / theirs:.0f}/s; Prefect's part of {mine:.1f} s: {mine - without:.1f} s"
        )
        yield Figure(f"{title} / threads with e2b", theirs / mine, "x", 1.0, True, detail)
        detail = f"{ITEMS / far:.0f}/s : {ITEMS / theirs_far:.0f}/s"
        yield Figure(
            f"the same, {DELAY * 1000:.0f} ms added to each response", theirs_far / far, "x", 3.0, True, detail
        )
        detail = f"{ITEMS / mine:.0f}/s : {ITEMS / plain:.0f}/s"
        yield Figure(f"{title} / .map of create, run, kill", plain / mine, "x", 5.0, True, detail)
        yield Figure("run_batch: processor time of the client for an item", min(cpu), "ms", 1.0)
        title = f"run_batch of {MANY} items over {MANY_SANDBOXES} sandboxes: memory of the client"
        detail = f"{growth / 1e6:.0f} MB of it for the batch"
        yield Figure(title, (before + growth) / 1e6, "MB", 300.0, detail=detail)


def numbers(count: int) -> list[str]:
    """Return items."""
    return [str(number) for number in range(count)]


def fresh(directory: str) -> str:
    """Return a results location that was not used before."""
    return tempfile.mkdtemp(dir=directory)


def processor() -> float:
    """Return the processor time of this process, in seconds."""
    return time.process_time()


def plainly(config: AGSConfig, name: str) -> None:
    """Do the same without a flow run: what Prefect adds is the difference."""
    options = {"tool": "base", "sandboxes": SANDBOXES, "results": fresh(name), "config": config}
    assert run_items(numbers(ITEMS), command=COMMAND, **options).succeeded == ITEMS


def many(config: AGSConfig, name: str) -> None:
    """Take ten thousand items through 64 sandboxes."""
    options = {"tool": "base", "sandboxes": MANY_SANDBOXES, "results": fresh(name), "config": config}
    assert run_items(numbers(MANY), command=COMMAND, **options).succeeded == MANY


@contextmanager
def delayed(endpoint: str) -> Iterator[None]:
    """Delay each response of a sandbox for the length of a block."""
    faults = f"{endpoint}/_emulator/streams"
    httpx.post(faults, json={"kind": "delay", "after_seconds": DELAY, "times": None}).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(faults).raise_for_status()


def best_of(works: tuple[Callable[[], object], ...], rounds: int = ROUNDS) -> list[float]:
    """Return the seconds of each in its best round, one after the other in each."""
    taken = [[seconds(work) for work in works] for _ in range(rounds)]
    return [min(each) for each in zip(*taken, strict=True)]


def mapped(options: ApiParams) -> Callable[[], None]:
    """Return what a Prefect user writes first: a task for each item that creates, runs, and kills."""

    @task
    def one(item: str) -> str:
        sandbox = Sandbox.create("base", **options)
        try:
            return sandbox.commands.run(COMMAND, envs={"ITEM": item}).stdout
        finally:
            sandbox.kill()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=SANDBOXES))
    def plain() -> None:
        outputs = one.map(numbers(MAPPED)).result()
        assert outputs == [f"item {number}\n" for number in range(MAPPED)]

    return plain


def threads(options: ApiParams) -> Callable[[], None]:
    """Return a script without Prefect: as many threads as sandboxes, each with one of them."""

    def bare() -> None:
        items: SimpleQueue[str] = SimpleQueue()
        for number in range(ITEMS):
            items.put(str(number))

        def work(_: int) -> int:
            sandbox = Sandbox.create("base", **options)
            done = 0
            while True:
                try:
                    item = items.get_nowait()
                except Empty:
                    break
                assert sandbox.commands.run(COMMAND, envs={"ITEM": item}).stdout == f"item {item}\n"
                done += 1
            sandbox.kill()
            return done

        with ThreadPoolExecutor(SANDBOXES) as pool:
            assert sum(pool.map(work, range(SANDBOXES))) == ITEMS

    return bare
