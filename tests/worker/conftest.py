"""A work pool of type `ags` on a real Prefect server, an emulator that lets sandboxes reach it, and workers."""

import asyncio
import gc
import time
import uuid
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from exceptiongroup import ExceptionGroup
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, PREFECT_WORKER_QUERY_SECONDS, temporary_settings

from ags_flows.ownership import LIVE, OWNER_PID
from ags_flows.testing import config_for, running_emulator
from ags_flows.worker import AGSWorker

IMAGE = "prefecthq/prefect:3-latest"


@flow
def nothing():
    """A flow whose runs execute what the job variable `command` has."""


def state(kind):
    """A shell command in the sandbox by which a flow would set its state."""
    return (
        'curl -sf -X POST "$PREFECT_API_URL/flow_runs/$PREFECT__FLOW_RUN_ID/set_state" '
        f"""-H 'Content-Type: application/json' -d '{{"state":{{"type":"{kind}"}},"force":true}}' >/dev/null"""
    )


@pytest.fixture(scope="module")
def served_ports():
    """Ports beside that of the Prefect server that sandboxes reach; a module can have some."""
    return []


@pytest.fixture(scope="module")
def emulator(prefect_server, served_ports):
    port = urlsplit(PREFECT_API_URL.value()).port
    with running_emulator(host_ports=[port, *served_ports]) as emulator:
        emulator.transition("tool.create", "at_once")
        yield emulator


@pytest.fixture
def config(emulator, monkeypatch):
    """The environment of the worker leads to the emulator, whose account is empty but for its tools."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    yield config_for(emulator)
    emulator.reset()
    emulator.transition("tool.create", "at_once")


@pytest.fixture(autouse=True)
def no_sockets_of_prefect():
    """Collect what Prefect leaves to the garbage collector while the warnings of the test are ignored."""
    yield
    gc.collect()


class Died(Exception):
    """A worker is stopped."""


class Pool:
    """A work pool, and what is asked of it."""

    def __init__(self, config):
        self.name = f"sandboxes-{uuid.uuid4().hex[:8]}"
        self.control = config.control_plane()
        with get_client(sync_client=True) as client:
            template = AGSWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=self.name, type="ags", base_job_template=template))
            self.flow_id = client.create_flow(nothing)

    def set_default(self, variable, value):
        """Change what the work pool has by default."""
        template = AGSWorker.get_default_base_job_template()
        template["variables"]["properties"][variable]["default"] = value
        with get_client(sync_client=True) as client:
            client.update_work_pool(self.name, WorkPoolUpdate(base_job_template=template))

    def deploy(self, **variables):
        with get_client(sync_client=True) as client:
            return client.create_deployment(
                self.flow_id,
                f"d-{uuid.uuid4().hex[:8]}",
                work_pool_name=self.name,
                entrypoint="x.py:nothing",
                job_variables={"image": IMAGE, **variables},
            )

    def submit(self, *commands, deployment=None, run_variables=None, **variables):
        """Create a flow run whose process executes shell commands, one after the other."""
        command = " && ".join(commands)
        deployment = deployment or self.deploy(command=command, **variables)
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(deployment, job_variables=run_variables).id

    def run(self, run_id):
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run_id)

    def set_state(self, run_id, new, **options):
        with get_client(sync_client=True) as client:
            return client.set_flow_run_state(run_id, new, **options)

    def instances(self, run_id=None):
        found = self.control.list_instances()
        return [one for one in found if run_id is None or one.metadata.get("flow-run-id") == str(run_id)]

    def live(self, run_id=None):
        return [one for one in self.instances(run_id) if one.status in LIVE]

    @asynccontextmanager
    async def worker(self, name="tester"):
        """Run a worker that polls, as `prefect worker start` does."""
        with temporary_settings({PREFECT_WORKER_QUERY_SECONDS: 0.5}):
            async with AGSWorker(work_pool_name=self.name, name=name) as worker:

                async def poll():
                    while True:
                        await worker.get_and_submit_flow_runs()
                        await asyncio.sleep(0.3)

                polling = asyncio.create_task(poll())
                try:
                    yield worker
                finally:
                    polling.cancel()
                    await asyncio.gather(polling, return_exceptions=True)

    def perform_and_die(self, scenario):
        """Run a scenario beside a worker that is stopped then: no process follows its sandboxes."""

        async def perform():
            async with self.worker() as worker:
                await scenario(worker)
                raise Died

        with pytest.raises((Died, ExceptionGroup)):
            asyncio.run(perform())
        for one in self.live():
            # As where the process has gone: its id is not alive.
            self.control.update_instance(one.id, metadata={OWNER_PID: "4194305"})

    def perform(self, scenario, name="tester"):
        """Run a scenario, an async function of the worker, beside a worker."""

        async def perform():
            async with self.worker(name) as worker:
                try:
                    return await scenario(worker)
                finally:
                    # What a scenario left must not keep the worker from ending.
                    for sandbox in list(worker._active.values()):
                        await asyncio.to_thread(sandbox.cancel)

        return asyncio.run(perform())

    def end_of(self, run, name="tester"):
        """Run a worker until a run has ended with its sandbox, and return the run."""

        async def scenario(worker):
            return await soon(lambda: ended(self, run))

        return self.perform(scenario, name)


async def soon(condition, seconds=30.0):
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.1)
    return value


def ended(pool, run):
    """Return a run that has ended with its sandbox, else None."""
    found = pool.run(run)
    return found if found.state.is_final() and not pool.live(run) else None


@pytest.fixture
def pool(config):
    return Pool(config)
