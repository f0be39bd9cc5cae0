"""Whole flows by `prefect worker start` and `prefect flow-run execute`, as a user runs them."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL

from ags_flows.demo.servers import end
from tests.worker.conftest import IMAGE, Pool

ROOT = Path(__file__).parents[2]

FLOW = """\
import time
from prefect import flow, get_run_logger

@flow
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

    def start(pool, name):
        environment = {
            **os.environ,
            **emulator.environment,
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(plugins)]),
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_flow_survives_the_death_of_its_worker_and_another_worker_ends_its_sandbox(config, start_worker, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "flows.py").write_text(FLOW)
    pool = Pool(config)
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(flow(lambda seconds: None, name="slow")),
            "d",
            work_pool_name=pool.name,
            entrypoint="flows.py:slow",
            path="/home/user/code",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "/home/user/code"}}],
            job_variables={"image": IMAGE, "uploads": {str(tmp_path / "code"): "code"}},
        )
        run = client.create_flow_run_from_deployment(deployment, parameters={"seconds": 20}).id
    first = start_worker(pool.name, "first")
    soon(lambda: "it begins" in messages(run))
    os.killpg(first.pid, signal.SIGKILL)
    second = start_worker(pool.name, "second")
    found = soon(lambda: pool.run(run) if pool.run(run).state.is_final() and not pool.live(run) else None)
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
    found = soon(lambda: pool.run(run) if pool.run(run).state.is_final() and not pool.live(run) else None)
    assert found.state.is_completed(), found.state
    host = found.infrastructure_pid[:12]
    assert f"good morning from {host}" in messages(run)
