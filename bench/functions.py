"""Functions in sandboxes: one call against `python3 -c pass` there, and `.map` against `run_batch`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from ags_flows import in_sandbox
from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.flows import run_batch
from ags_flows.session import SandboxSession
from ags_flows.tasks import exec_command
from bench.batch import best_of
from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_process, running_sandbox

CALLS, SANDBOXES, ROUNDS = 200, 16, 30


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
    with (
        running_emulator_process() as config,
        tempfile.TemporaryDirectory(prefix="ags-bench-") as name,
        prefect_server(Path(name)) as (server, url),
    ):
        wait_for_prefect(server, url, Path(name))
        double = in_sandbox(tool="base", sandboxes=SANDBOXES, config=config)(_double)
        rounds = iter(range(1000))

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=SANDBOXES))
        def mapped() -> None:
            assert double.map(list(range(CALLS))).result() == [2 * number for number in range(CALLS)]

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

        settings = {
            PREFECT_API_URL: f"{url}/api",
            PREFECT_LOGGING_TO_API_ENABLED: False,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        with temporary_settings(settings):
            ours, theirs = best_of((mapped, batch), rounds=3)
        detail = f"{CALLS / ours:.0f}/s : {CALLS / theirs:.0f}/s"
        title = f".map of {CALLS} calls over {SANDBOXES} sandboxes / run_batch of the same command"
        yield Figure(title, theirs / ours, "x", 0.8, True, detail)


def _double(number: int) -> int:
    return 2 * number
