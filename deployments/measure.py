"""Measure how far a set-up goes, on yours as on ours.

`python deployments/measure.py runs [--runs 20]`: flow runs of the deployment provision-and-run/run-command, started
concurrently and executed by the process that serves it: serve.py, one worker, several workers.

`python deployments/measure.py fan-out [--tasks 200] [--runner threads|dask|ray]`: short commands in one sandbox, each a
task run of one flow run in this process, by a task runner (of prefect-dask or prefect-ray).

Both need PREFECT_API_URL and AGS, or its emulator, in the environment.
"""

import argparse
import statistics
import time
from typing import Any

from prefect import flow, unmapped
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ags_flows import AGSConfig, sandbox_session
from ags_flows.tasks import exec_command

AT_ONCE = 16
"""Concurrent tasks: the same for each runner."""


def measure_runs(deployment: str, count: int) -> str:
    """Start flow runs concurrently, and wait for them."""
    with get_client(sync_client=True) as client:
        known = client.read_deployment_by_name(deployment)
        started = time.monotonic()
        runs = [client.create_flow_run_from_deployment(known.id, parameters={"command": "true"}) for _ in range(count)]
        ended = [_ended(client, run) for run in runs]
        seconds = time.monotonic() - started
    failed = sum(1 for run in ended if not (run.state and run.state.is_completed()))
    took = statistics.median(run.total_run_time.total_seconds() for run in ended)
    return (
        f"{count} runs in {seconds:.0f} s: {count / seconds * 60:.0f} a minute, {took:.1f} s each (median), "
        f"{failed} failed"
    )


def _ended(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    while not (run.state and run.state.is_final()):
        time.sleep(0.5)
        run = client.read_flow_run(run.id)
    return run


def measure_fan_out(runner: TaskRunner[Any], count: int) -> str:
    """Run short commands as task runs of one flow run."""

    @flow(name="fan-out", task_runner=runner)
    def fan_out() -> float:
        config = AGSConfig()
        with sandbox_session("code-interpreter-v1", config=config) as sandbox:
            # The first ones start the runner's own processes.
            _map(["true"] * AT_ONCE, sandbox.instance.id, config)
            started = time.monotonic()
            _map([f"true {number}" for number in range(count)], sandbox.instance.id, config)
            return time.monotonic() - started

    started = time.monotonic()
    seconds = fan_out()
    others = time.monotonic() - started - seconds
    return f"{count} commands in {seconds:.1f} s: {count / seconds:.0f} a second; {others:.0f} s to start and to end"


def _map(commands: list[str], instance: str, config: AGSConfig) -> None:
    runs = exec_command.map(unmapped(instance), commands, durable=unmapped(False), config=unmapped(config))
    assert all(result.ok for result in runs.result())


def runner_named(name: str) -> TaskRunner[Any]:
    """Return a task runner that executes `AT_ONCE` tasks concurrently on this machine."""
    if name == "dask":
        from prefect_dask import DaskTaskRunner

        return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": AT_ONCE // 2})
    if name == "ray":
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(init_kwargs={"num_cpus": AT_ONCE})
    return ThreadPoolTaskRunner(max_workers=AT_ONCE)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["runs", "fan-out"])
    parser.add_argument("--deployment", default="provision-and-run/run-command")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--runner", choices=["threads", "dask", "ray"], default="threads")
    chosen = parser.parse_args()
    if chosen.what == "runs":
        print(measure_runs(chosen.deployment, chosen.runs))
    else:
        print(f"{chosen.runner}: {measure_fan_out(runner_named(chosen.runner), chosen.tasks)}")


if __name__ == "__main__":
    main()
