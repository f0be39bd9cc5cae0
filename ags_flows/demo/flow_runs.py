"""The demo's flow runs by a worker, in a process whose environment has the URLs of the two servers."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

from ags_flows.blocks import AGSConfig
from ags_flows.demo import revenue
from ags_flows.demo.data import PRODUCTS, write_data
from ags_flows.demo.servers import child
from ags_flows.ownership import LIVE
from ags_flows.worker import AGSWorker

POOL, CODE = "sandboxes", "/home/user/code"
IMAGE = "prefecthq/prefect:3-latest"
RUNS = 3
PATIENCE = 300.0


def main(directory: Path) -> int:
    """Execute flow runs in sandboxes by a worker, print what became of them, and return an exit code."""
    code = write_data(directory / "code")
    shutil.copyfile(revenue.__file__, code / "revenue.py")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "demo"]
    with get_client(sync_client=True) as client:
        deployment = _deployed(client, code)
        with child(command, directory / "worker.log", {**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1"}):
            runs = [
                client.create_flow_run_from_deployment(deployment, parameters={"product": product})
                for product in list(PRODUCTS)[:RUNS]
            ]
            print(f"{RUNS} flow runs wait for the worker of the work pool {POOL}", flush=True)
            ended = [_ended(client, run) for run in runs]
            left = _left()
        # A flow's process sends its last lines before its sandbox ends.
        for run in ended:
            _show(client, run)
    print(f"{sum(_is_completed(run) for run in ended)} of {RUNS} flow runs completed; sandboxes left: {left}")
    return 0 if all(map(_is_completed, ended)) and not left else 1


def _deployed(client: SyncPrefectClient, code: Path) -> UUID:
    template = AGSWorker.get_default_base_job_template()
    client.create_work_pool(WorkPoolCreate(name=POOL, type=AGSWorker.type, base_job_template=template))
    return client.create_deployment(
        client.create_flow(revenue.revenue),
        "sandboxed",
        work_pool_name=POOL,
        entrypoint="revenue.py:revenue",
        path=CODE,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": CODE}}],
        job_variables={"image": IMAGE, "uploads": {str(code): CODE}},
    )


def _ended(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait for the end of a flow run, and return what it is then."""
    deadline = time.monotonic() + PATIENCE
    while (found := client.read_flow_run(run.id)).state is None or not found.state.is_final():
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return found


def _show(client: SyncPrefectClient, run: FlowRun) -> None:
    print(f"{run.name}: {run.state_name}, in sandbox {run.infrastructure_pid}")
    for entry in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))):
        print(f"  {entry.message}", flush=True)


def _left() -> int:
    """Return how many sandboxes live when the worker has had the time to stop them."""
    control, deadline = AGSConfig().control_plane(), time.monotonic() + 10
    while (left := sum(one.status in LIVE for one in control.list_instances())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _is_completed(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_completed()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
