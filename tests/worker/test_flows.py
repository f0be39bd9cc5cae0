"""Whole flows by `prefect worker start` and `prefect flow-run execute`, as a user runs them."""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import s3fs
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from prefect.variables import Variable

from ags_flows.cloud.data_planes import open_plane
from ags_flows.demo.servers import child, end, free_port, prefect_environment, wait_for_prefect
from ags_flows.testing import config_for, running_emulator
from tests.worker.conftest import IMAGE, Pool, state

ROOT = Path(__file__).parents[2]

FLOW = """\
import time
from prefect import flow, get_run_logger
from prefect.variables import Variable

def report(flow, flow_run, state):
    Variable.set(f"hook_{flow_run.id.hex}", state.name, overwrite=True)

@flow(on_cancellation=[report])
def slow(seconds: float):
    get_run_logger().info("it begins")
    time.sleep(seconds)
    get_run_logger().info("it ends")
"""


@pytest.fixture
def plugins(tmp_path):
    """A directory by which Prefect finds the entry points of `pyproject.toml`, as after an installation."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition('[project.entry-points."prefect.collections"]')[2].partition("\n\n")[0].replace('"', "")
    info = tmp_path / "plugins" / "ags_flows_of_this_directory-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ags-flows-of-this-directory\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[prefect.collections]{section}\n")
    return info.parent


@pytest.fixture
def start_worker(plugins, emulator, config, tmp_path):
    """Start workers by the command line; what of them lives at the end is killed."""
    started = []

    def start(pool, name, **more):
        environment = {
            **os.environ,
            **emulator.environment,
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(plugins)]),
            **more,
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name]
        log = (tmp_path / f"{name}.log").open("wb")
        started.append(
            (subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True), log)
        )
        return started[-1][0]

    yield start
    for process, log in started:
        end(process, signal.SIGKILL)
        log.close()


def messages(run_id):
    with get_client(sync_client=True) as client:
        found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
    return [one.message for one in found]


def soon(condition, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return value


SET_DIRECTORY = {"prefect.deployments.steps.set_working_directory": {"directory": "/home/user/code"}}


def submitted(pool, seconds, pull_steps, **variables):
    """Create a flow run of the flow above, and return its id."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(flow(lambda seconds: None, name="slow")),
            "d",
            work_pool_name=pool.name,
            entrypoint="flows.py:slow",
            pull_steps=pull_steps,
            job_variables={"image": IMAGE, **variables},
        )
        return client.create_flow_run_from_deployment(deployment, parameters={"seconds": seconds}).id


@pytest.fixture
def code(tmp_path):
    """A directory with the flow above, and the job variable that uploads it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "flows.py").write_text(FLOW)
    return {str(tmp_path / "code"): "code"}


def over(pool, run):
    found = pool.run(run)
    return found if found.state.is_final() and not pool.live(run) else None


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_flow_survives_the_death_of_its_worker_and_another_worker_ends_its_sandbox(config, start_worker, code):
    pool = Pool(config)
    run = submitted(pool, 20, [SET_DIRECTORY], uploads=code)
    first = start_worker(pool.name, "first")
    soon(lambda: "it begins" in messages(run))
    os.killpg(first.pid, signal.SIGKILL)
    second = start_worker(pool.name, "second")
    found = soon(lambda: over(pool, run))
    assert found.state.is_completed(), found.state
    assert [one.id for one in pool.instances(run)] == [found.infrastructure_pid]
    assert messages(run).count("it begins") == messages(run).count("it ends") == 1
    assert second.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_example_is_deployed_and_executed(config, start_worker):
    spec = importlib.util.spec_from_file_location("worker_example", ROOT / "examples" / "worker.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    pool = Pool(config)
    example.POOL = pool.name
    name = example.deploy()
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name(name).id).id
    start_worker(pool.name, "example")
    found = soon(lambda: over(pool, run))
    assert found.state.is_completed(), found.state
    host = found.infrastructure_pid[:12]
    assert f"good morning from {host}" in messages(run)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_flow_that_is_cancelled_loses_its_sandbox(config, start_worker, code):
    pool = Pool(config)
    run = submitted(pool, 1000, [SET_DIRECTORY], uploads=code)
    start_worker(pool.name, "cancelling")
    soon(lambda: "it begins" in messages(run))
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    subprocess.run([sys.executable, "-m", "prefect", "flow-run", "cancel", str(run)], env=environment, check=True)
    began = time.monotonic()
    soon(lambda: not pool.live(run))
    took = time.monotonic() - began
    assert soon(lambda: over(pool, run)).state.type == StateType.CANCELLED
    assert took < 12


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_hooks_of_a_flow_that_is_cancelled_are_executed_where_there_is_time(config, code, monkeypatch):
    # A machine with other work needs more than the worker gives.
    monkeypatch.setattr("ags_flows.worker.worker.GRACE", 100.0)
    pool = Pool(config)
    run = submitted(pool, 1000, [SET_DIRECTORY], uploads=code)

    async def scenario(worker):
        await asyncio.to_thread(soon, lambda: "it begins" in messages(run))
        pool.set_state(run, Cancelling())
        return await asyncio.to_thread(soon, lambda: over(pool, run))

    assert pool.perform(scenario).state.type == StateType.CANCELLED
    assert Variable.get(f"hook_{run.hex}") == "Cancelling", messages(run)


@pytest.fixture(scope="module")
def served_ports():
    """The port of the server that code is pulled from."""
    return [free_port()]


def git(source, port):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "flows"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    serve = ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={source.parent}"]
    address = f"git://127.0.0.1:{port}/flows"
    return serve, {"git_clone": {"repository": address, "branch": "main"}}, None


def archive(source, port):
    with zipfile.ZipFile(source.parent / "flows.zip", "w") as packed:
        packed.write(source / "flows.py", "flows/flows.py")
    serve = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(source.parent)]
    address = f"simplecache::http://127.0.0.1:{port}/flows.zip"
    return serve, {"pull_from_remote_storage": {"url": "zip://flows", "fo": address}}, None


def bucket(source, port):
    serve = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    settings = {"key": "of-storage", "secret": "{{ $STORAGE_SECRET }}", "endpoint_url": f"http://127.0.0.1:{port}"}
    step = {"pull_from_remote_storage": {"url": "s3://flows-of-tests/flows", **settings}}

    def fill():
        storage = s3fs.S3FileSystem(key="of-storage", secret="x", endpoint_url=settings["endpoint_url"])
        storage.mkdir("flows-of-tests")
        storage.put(str(source), "flows-of-tests/flows", recursive=True)

    return serve, step, fill


@pytest.fixture(params=[git, archive, bucket], ids=lambda one: one.__name__)
def pull_step(request, served_ports, tmp_path):
    """A pull step, and a server that it gets the flow above from."""
    (port,) = served_ports
    source = tmp_path / "served" / "flows"
    source.mkdir(parents=True)
    (source / "flows.py").write_text(FLOW)
    serve, step, fill = request.param(source, port)
    with child(serve, tmp_path / "serve.log", os.environ) as server:
        soon(lambda: listens(port) or server.poll() is not None, 60)
        if fill is not None:
            fill()
        yield {f"prefect.deployments.steps.{name}": arguments for name, arguments in step.items()}


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_pull_steps_are_executed_in_the_sandbox(config, start_worker, pull_step):
    pool = Pool(config)
    Secret(value="secret-of-storage").save("storage", overwrite=True)
    run = submitted(pool, 0, [pull_step], secrets={"STORAGE_SECRET": "storage"})
    start_worker(pool.name, "pulling")
    found = soon(lambda: over(pool, run))
    assert found.state.is_completed(), found.state
    assert "it ends" in messages(run), messages(run)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_what_ends_while_the_prefect_server_is_away_is_reported_when_it_is_back(start_worker, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log, environment = tmp_path / "prefect-server.log", prefect_environment(tmp_path)
    with running_emulator(host_ports=[port]) as own, temporary_settings({PREFECT_API_URL: f"{url}/api"}):
        own.transition("tool.create", "at_once")
        config = config_for(own)
        with child(command, log, environment) as server:
            wait_for_prefect(server, url, tmp_path)
            pool = Pool(config)
            ends = [f"until {state('COMPLETED')}; do sleep 0.5; done", "exit 7", "sleep 1000"]
            runs = [pool.submit(state("RUNNING"), "while [ ! -e go ]; do sleep 0.1; done", end) for end in ends]
            worker = start_worker(pool.name, "waiting", **own.environment, PREFECT_API_URL=f"{url}/api")
            soon(lambda: all(pool.run(run).state.is_running() for run in runs))
            pool.set_state(runs[2], Cancelling())
        for run in runs[:2]:
            open_plane(config.connection(), pool.live(run)[0].id).plane.write("go", "")
        # A sandbox whose process has ended does not wait for the server.
        soon(lambda: not pool.live(runs[1]))
        with child(command, log, environment) as server:
            wait_for_prefect(server, url, tmp_path)
            completed, crashed, cancelled = (soon(lambda run=run: over(pool, run)) for run in runs)
            assert completed.state.is_completed()
            assert crashed.state.is_crashed() and "exit code 7" in crashed.state.message
            assert cancelled.state.is_cancelled()
            assert worker.poll() is None
            end(worker, signal.SIGKILL)
