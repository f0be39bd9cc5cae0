"""Flow runs by the worker: how soon they start, beside a process worker; and twenty concurrent ones."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.ownership import LIVE
from ags_flows.testing import config_for, running_emulator
from ags_flows.worker import AGSWorker
from bench.figure import Figure

ROUNDS, AT_ONCE = 3, 20
MOST = 600.0
FLOW = "from prefect import flow\n\n\n@flow\ndef nothing():\n    pass\n"


@flow
def nothing() -> None:
    """Do nothing."""


def figures() -> Iterator[Figure]:
    """Start one flow at a time by each worker, and then many by ours."""
    with tempfile.TemporaryDirectory(prefix="ags-bench-") as name, prefect_server(Path(name)) as (server, url):
        wait_for_prefect(server, url, Path(name))
        code = Path(name, "code")
        code.mkdir()
        (code / "flows.py").write_text(FLOW)
        port = int(url.rsplit(":", 1)[1])
        with (
            running_emulator(host_ports=[port]) as emulator,
            temporary_settings({PREFECT_API_URL: f"{url}/api"}),
        ):
            os.environ.update(emulator.environment)
            ours, theirs, finished = asyncio.run(_measured(code))
            control = config_for(emulator).control_plane()
            left = sum(one.status in LIVE for one in control.list_instances())
        detail = f"{ours:.1f} s / {theirs:.1f} s"
        yield Figure("a flow run starts later than by a process worker", ours - theirs, "s", 2.0, detail=detail)
        yield Figure(f"{AT_ONCE} concurrent flow runs: completed", finished, "runs", AT_ONCE, at_least=True)
        yield Figure(f"{AT_ONCE} concurrent flow runs: sandboxes left", left, "sandboxes", 0)


async def _measured(code: Path) -> tuple[float, float, int]:
    variables = {"image": "prefecthq/prefect:3-latest", "uploads": {str(code): "code"}}
    sandboxed = _deployed("sandboxes", AGSWorker, Path("/home/user/code"), variables)
    local = _deployed("processes", ProcessWorker, code, {})
    async with AGSWorker("sandboxes") as ours, ProcessWorker("processes") as theirs:
        pairs = [(await _delay(ours, sandboxed), await _delay(theirs, local)) for _ in range(ROUNDS)]
        with get_client(sync_client=True) as client:
            runs = [client.create_flow_run_from_deployment(sandboxed).id for _ in range(AT_ONCE)]
        await ours.get_and_submit_flow_runs()
        deadline = time.monotonic() + MOST
        while True:
            states = [(await ours.client.read_flow_run(run)).state for run in runs]
            if all(state and state.is_final() for state in states) or time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
    completed = sum(bool(state and state.is_completed()) for state in states)
    return statistics.median(one for one, _ in pairs), statistics.median(one for _, one in pairs), completed


def _deployed(pool: str, worker: type[BaseWorker], place: Path, variables: dict[str, object]) -> UUID:  # type: ignore[type-arg]
    with get_client(sync_client=True) as client:
        template = worker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type=worker.type, base_job_template=template))
        return client.create_deployment(
            client.create_flow(nothing),
            pool,
            work_pool_name=pool,
            entrypoint="flows.py:nothing",
            path=str(place),
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(place)}}],
            job_variables=variables,
        )


async def _delay(worker: BaseWorker, deployment: UUID) -> float:  # type: ignore[type-arg]
    """Return the seconds from the submission of a flow run to its begin."""
    run = (await worker.client.create_flow_run_from_deployment(deployment)).id
    began = time.time()
    await worker.get_and_submit_flow_runs()
    while True:
        found = await worker.client.read_flow_run(run)
        if found.state is not None and found.state.is_final():
            break
        await asyncio.sleep(0.2)
    assert found.start_time is not None, found.state
    return found.start_time.timestamp() - began
