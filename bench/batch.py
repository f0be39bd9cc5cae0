"""Five hundred short items over 32 sandboxes: `run_batch`, a plain Prefect `.map` with e2b, and threads with e2b."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from e2b import ApiParams, Sandbox
from prefect import flow, task
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.flows import run_batch
from bench.figure import Figure, seconds
from bench.reaping import config_of
from bench.sandbox import running_emulator_exports

ITEMS, SANDBOXES, ROUNDS = 500, 32, 5
COMMAND = 'echo "item $ITEM"'


def figures() -> Iterator[Figure]:
    """Run each in turns, and take the best round of each: what is in the way is noise."""
    with (
        running_emulator_exports() as (exports, _),
        tempfile.TemporaryDirectory(prefix="ags-bench-") as name,
        prefect_server(Path(name)) as (server, url),
    ):
        wait_for_prefect(server, url, Path(name))
        config = config_of(exports)
        options = ApiParams(
            api_key=exports["E2B_API_KEY"], api_url=exports["E2B_API_URL"], sandbox_url=exports["E2B_SANDBOX_URL"]
        )
        rounds: Iterator[int] = iter(range(1000))

        def ours() -> None:
            report = run_batch(
                [str(number) for number in range(ITEMS)],
                COMMAND,
                tool="base",
                sandboxes=SANDBOXES,
                durable=False,
                results=f"{name}/{next(rounds)}",
                config=config,
            )
            assert report.succeeded == ITEMS, report

        def durable() -> None:
            report = run_batch(
                [str(number) for number in range(ITEMS)],
                COMMAND,
                tool="base",
                sandboxes=SANDBOXES,
                results=f"{name}/{next(rounds)}",
                config=config,
            )
            assert report.succeeded == ITEMS, report

        settings = {
            PREFECT_API_URL: f"{url}/api",
            PREFECT_LOGGING_TO_API_ENABLED: False,
            # Every flow run waits for the thread of its heartbeats, which looks up once a second: with it all that is
            # measured with Prefect takes whole seconds.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        with temporary_settings(settings):
            mine, bare = best_of((ours, threads(options)))
            (safe,) = best_of((durable,))
            # Last: the server writes down the task runs of `.map` long after it has ended.
            (plain,) = best_of((mapped(options),))
        title = f"run_batch of {ITEMS} items over {SANDBOXES} sandboxes"
        told = f"{ITEMS / mine:.0f}/s"
        yield Figure(
            f"{title} / .map of create, run, kill", plain / mine, "x", 2.0, True, f"{told} : {ITEMS / plain:.0f}/s"
        )
        yield Figure(f"{title} / threads with e2b", bare / mine, "x", 0.8, True, f"{told} : {ITEMS / bare:.0f}/s")
        told = f"{ITEMS / safe:.0f}/s"
        yield Figure(f"{title}, durable / .map", plain / safe, "x", 2.0, True, f"{told} : {ITEMS / plain:.0f}/s")


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
        outputs = one.map([str(number) for number in range(ITEMS)]).result()
        assert outputs == [f"item {number}\n" for number in range(ITEMS)]

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
