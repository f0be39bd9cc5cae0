"""Requests of the worker that get an error of the Prefect server: nothing is lost, and nothing is executed twice."""

import asyncio
import contextlib
import contextvars
import re
import threading
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_WORKER_QUERY_SECONDS,
    temporary_settings,
)
from prefect.states import Pending

from ags_flows.worker import AGSWorker
from tests.servers import serving
from tests.worker.conftest import ended, soon, state

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "impatient"),
    # Prefect leaves sockets to the garbage collector when an event loop ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

REQUESTS = {
    "poll": r"POST .*/get_scheduled_flow_runs$",
    "deployment": r"GET .*/deployments/[^/]+$",
    "propose": r"POST .*/set_state$",
    "flow": r"GET .*/flows/[^/]+$",
    "labels": r"PATCH .*/labels$",
    "run": r"GET .*/flow_runs/[^/]+$",
    "secret": r"GET .*/block_documents/name/.*",
    "pid": r"PATCH .*/flow_runs/[^/]+$",
    "runs": r"POST .*/flow_runs/filter$",
    "heartbeat": r"(POST .*/heartbeat|GET .*/work_pools/[^/]+)$",
    "events": r".*/events.*",
    "everything": r".*",
}

ALWAYS = ("everything",)


class Proxy(BaseHTTPRequestHandler):
    """Forwards requests to the Prefect server, and responds to some of them with an error."""

    def forward(self):
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        with server.lock:
            is_error = server.left > 0 and re.fullmatch(server.pattern, f"{self.command} {self.path}")
            server.left -= bool(is_error)
        # The events of the worker come over a web socket, which this proxy never has.
        if (is_error and not server.applies) or self.headers.get("Upgrade"):
            status, content = server.status, b"{}"
        else:
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(server.target + self.path, body, headers, method=self.command)
            try:
                with urllib.request.urlopen(request) as response:
                    status, content = response.status, response.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
        self.send_response(server.status if is_error else status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = forward

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy():
    target = PREFECT_API_URL.value().removesuffix("/api")
    fault = {"pattern": "", "left": 0, "status": 503, "applies": False}
    with serving(Proxy, lock=threading.Lock(), target=target, **fault) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("ags_flows.worker.patience.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("ags_flows.worker.patience.LONGEST_PAUSE", 0.1)
    monkeypatch.setattr("ags_flows.worker.worker.PENDING_FOR", timedelta(seconds=2))


def perform_behind(proxy, pool, scenario):
    """Run a scenario beside a worker with its real loops, whose requests go through the proxy; it must not end."""
    outside = contextvars.copy_context()
    behind = {
        PREFECT_API_URL: f"http://127.0.0.1:{proxy.server_port}/api",
        PREFECT_WORKER_QUERY_SECONDS: 0.2,
        PREFECT_CLIENT_MAX_RETRIES: 0,
    }

    async def perform():
        with temporary_settings(behind):
            worker = AGSWorker(work_pool_name=pool.name, name="behind", heartbeat_interval_seconds=1)
            working = asyncio.create_task(worker.start())
        try:
            await soon(lambda: worker.is_setup)
            found = await scenario(worker, outside.run)
            assert not working.done()
            return found
        finally:
            working.cancel()
            with contextlib.suppress(BaseException):
                await working

    return asyncio.run(perform())


def kinds(run):
    """The states that a run had, of each that follows itself one."""
    with get_client(sync_client=True) as client:
        response = client._client.get("/flow_run_states/", params={"flow_run_id": str(run)})
    found = [one["type"] for one in sorted(response.json(), key=lambda one: one["timestamp"])]
    return [kind for at, kind in enumerate(found) if at == 0 or found[at - 1] != kind]


@pytest.mark.parametrize(
    "asked", [one if one in ALWAYS else pytest.param(one, marks=pytest.mark.long) for one in REQUESTS]
)
def test_a_run_is_executed_once_whatever_request_gets_an_error(proxy, pool, asked):
    Secret(value="of the run").save("of-the-run", overwrite=True)
    deployment = pool.deploy(
        command=" && ".join([state("RUNNING"), "sleep 0.2", state("COMPLETED")]),
        api_url=PREFECT_API_URL.value(),
        secrets={"TOKEN": "of-the-run"},
    )

    async def scenario(worker, outside):
        runs = []
        for proxy.left, proxy.status, proxy.applies in [(1, 500, False), (10, 503, False), (1, 503, True)]:
            proxy.pattern = REQUESTS[asked]
            run = await asyncio.to_thread(outside, lambda: pool.submit(deployment=deployment))
            await soon(lambda run=run: outside(ended, pool, run), 60)
            proxy.left = 0
            runs.append(run)
        return runs

    for run in perform_behind(proxy, pool, scenario):
        assert kinds(run) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
        assert len(pool.instances(run)) == 1
        assert pool.run(run).infrastructure_pid == pool.instances(run)[0].id


@pytest.mark.long
@pytest.mark.parametrize("asked", ["poll", "heartbeat"])
def test_a_worker_outlives_a_server_that_is_away_for_long(proxy, pool, asked):
    async def scenario(worker, outside):
        proxy.pattern, proxy.status, proxy.left = REQUESTS[asked], 500, 20
        await soon(lambda: proxy.left == 0, 60)
        run = await asyncio.to_thread(outside, lambda: pool.submit("true"))
        return await soon(lambda: outside(ended, pool, run), 60)

    assert perform_behind(proxy, pool, scenario).state.type == StateType.CRASHED


def test_a_submission_that_waits_for_the_server_is_not_recovered_beside_itself(proxy, pool):
    """The server refuses requests for longer than a run is PENDING whose worker lives."""
    run = pool.submit(state("RUNNING"), "sleep 1", state("COMPLETED"), api_url=PREFECT_API_URL.value())

    def is_old():
        found = pool.run(run).state
        return found.is_pending() and datetime.now(timezone.utc) - found.timestamp > timedelta(seconds=3)

    async def scenario(worker, outside):
        proxy.pattern, proxy.left = REQUESTS["flow"], 10_000
        await soon(lambda: outside(is_old))
        await soon(lambda: worker._recovering is None or worker._recovering.done())
        await worker.sync_with_backend()
        await worker._recovering
        assert run not in worker._active
        proxy.left = 0
        return await soon(lambda: outside(ended, pool, run), 60)

    perform_behind(proxy, pool, scenario)
    assert kinds(run) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    assert len(pool.instances(run)) == 1


def test_a_worker_starts_nothing_for_a_run_that_another_one_has_executed(pool):
    run = pool.submit(state("RUNNING"), state("COMPLETED"))
    pool.set_state(run, Pending())
    as_it_was = pool.run(run)

    async def scenario(worker):
        await worker._submit(as_it_was)
        await soon(lambda: ended(pool, run))
        await worker._submit(as_it_was)
        await soon(lambda: not worker._active)

    pool.perform(scenario)
    assert kinds(run) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    assert len(pool.instances(run)) == 1
