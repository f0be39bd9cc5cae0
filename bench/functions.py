"""Functions in sandboxes: one call against `python3 -c pass` there, and `.map` against `run_batch`."""

from __future__ import annotations

import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from ags_flows import AGSConfig, in_sandbox
from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.flows import run_batch
from ags_flows.functions.pools import end_pools
from ags_flows.session import SandboxSession
from ags_flows.tasks import exec_command
from bench.batch import best_of
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process, running_sandbox

CALLS, SANDBOXES, ROUNDS, FIRST_CALLS = 200, 16, 30, 5


def nothing() -> None:
    """Do nothing."""


def figures() -> Iterator[Figure]:
    """Measure one call in an open session, and many in a flow."""
    with running_sandbox() as (config, instance):
        session = SandboxSession("bench", instance, config, [])

        def bare() -> None:
            exec_command.fn(instance, "python3 -c pass", log_output=False, config=config)

        ours, theirs = side_by_side(lambda: session.call(nothing), bare, ROUNDS)
        detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
        yield Figure("sandbox.call(nothing) / exec_command python3 -c pass", ours / theirs, "x", 3.0, detail=detail)
    with tempfile.TemporaryDirectory(prefix="ags-bench-") as name, prefect_server(Path(name)) as (server, url):
        wait_for_prefect(server, url, Path(name))
        settings = {
            PREFECT_API_URL: f"{url}/api",
            PREFECT_LOGGING_TO_API_ENABLED: False,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        _lay_wheel(Path(name))
        with temporary_settings(settings):
            with running_emulator_process() as config:
                yield _of_map(config, name)
                end_pools()
            with running_emulator_process("--volumes", name) as config:
                yield _of_packages(config)
                end_pools()


def _of_map(config: AGSConfig, name: str) -> Figure:
    """Compare `.map` with a batch of the same command, and with `.map` of a Prefect task that does nothing."""
    double = in_sandbox(tool="base", sandboxes=SANDBOXES, config=config)(_double)
    rounds = iter(range(1000))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=SANDBOXES))
    def mapped() -> None:
        assert double.map(list(range(CALLS))).result() == [2 * number for number in range(CALLS)]

    @task(cache_policy=NO_CACHE)
    def empty(number: int) -> int:
        return 2 * number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=SANDBOXES))
    def floor() -> None:
        assert empty.map(list(range(CALLS))).result() == [2 * number for number in range(CALLS)]

    def batch() -> None:
        report = run_batch(
            [str(number) for number in range(CALLS)],
            "python3 -c \"import os; print(2 * int(os.environ['ITEM']))\"",
            tool="base",
            sandboxes=SANDBOXES,
            results=f"{name}/{next(rounds)}",
            config=config,
        )
        assert report.succeeded == CALLS, report

    ours, theirs, prefect = best_of((mapped, batch, floor), rounds=3)
    detail = f"{CALLS / ours:.0f}/s : {CALLS / theirs:.0f}/s; .map of an empty Prefect task: {CALLS / prefect:.0f}/s"
    title = f".map of {CALLS} calls over {SANDBOXES} sandboxes / run_batch of the same command"
    return Figure(title, theirs / ours, "x", 0.8, True, detail)


def _of_packages(config: AGSConfig) -> Figure:
    """Compare the first calls of runs: with packages that a snapshot has, with pip, and without packages."""
    where = {"image": "wheels:1", "sandboxes": 1, "config": config}
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}
    with_packages = in_sandbox(packages=["ags-bench-package==1.0"], env=index, **where)(_double)
    without = in_sandbox(**where)(_double)

    def first_call(function: Task[[int], int]) -> float:
        @flow
        def once() -> float:
            began = time.perf_counter()
            assert function(2) == 4
            return time.perf_counter() - began

        return once()

    first_call(without)  # makes the tool
    pip = first_call(with_packages)
    pairs = [(first_call(with_packages), first_call(without)) for _ in range(FIRST_CALLS)]
    snapshot, bare = (statistics.median(each) for each in zip(*pairs, strict=True))
    detail = f"{snapshot:.2f} s / {bare:.2f} s; with pip in the sandbox {pip:.2f} s"
    return Figure("first call of a run, packages in a snapshot / no packages", snapshot / bare, "x", 1.5, detail=detail)


def _lay_wheel(volumes: Path) -> None:
    """Make an image that has the wheel of a package."""
    wheel = volumes / "images" / "wheels_1" / "opt" / "wheels" / "ags_bench_package-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    info = "ags_bench_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ags_bench_package.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ags-bench-package\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def _double(number: int) -> int:
    return 2 * number
