"""A real Prefect server, an emulator in a separate process, and a runner that serves flows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import State

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.cloud.data_planes import open_plane
from ags_flows.demo.servers import emulator, end, prefect_environment, prefect_server, wait_for_prefect
from ags_flows.errors import AGSFlowsError
from ags_flows.flows.hooks import instances_of
from ags_flows.lifecycle.ensure_tool import delete_drained
from ags_flows.ownership import LIVE

FINAL = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}


class Stage:
    """Everything that a flow runs on, and what tests do to it."""

    def __init__(self, directory, api, exports, url):
        self.directory = directory
        self.api = api
        self.environment = {**prefect_environment(directory), **exports, "PREFECT_API_URL": url}
        # The shortest that Prefect allows; the automation that looks for lost runs waits for several.
        self.environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "30"
        self.environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.exports = exports
        keys = TencentCloudCredentials(
            secret_id=exports["TENCENTCLOUD_SECRET_ID"], secret_key=exports["TENCENTCLOUD_SECRET_KEY"]
        )
        endpoint = exports["AGS_ENDPOINT"]
        self.config = AGSConfig(http_endpoint=endpoint, domain=endpoint, credentials=keys)
        self.control = self.config.control_plane()
        self.runner = None

    def settings(self):
        """Point this process's Prefect to the stage: other tests of the process have another server."""
        return temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]})

    @staticmethod
    def wait_until(condition, timeout):
        return wait_until(condition, timeout)

    def serve(self):
        """Start a runner, and wait until it serves."""
        log = (self.directory / "runner.log").open("ab")
        command = [sys.executable, str(Path(__file__).with_name("job.py"))]
        self.runner = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        wait_until(lambda: self._is_served(), 60)

    def _is_served(self):
        assert self.runner.poll() is None, (self.directory / "runner.log").read_text()[-2000:]
        try:
            return all(self.api.read_deployment_by_name(f"{flow}/served").status == "READY" for flow in FLOWS)
        except Exception:
            return False

    def start(self, flow, **parameters):
        """Start a run of a served flow."""
        deployment = self.api.read_deployment_by_name(f"{flow}/served")
        return self.api.create_flow_run_from_deployment(deployment.id, parameters=parameters)

    def state(self, run):
        return self.api.read_flow_run(run.id).state

    def ended(self, run, timeout=90):
        """Wait for the end of a run and return its state."""
        wait_until(lambda: self.state(run).type in FINAL, timeout)
        return self.state(run)

    def retry(self, run):
        """What the Retry button of the UI does."""
        state = State(type=StateType.SCHEDULED, name="AwaitingRetry")
        self.api.set_flow_run_state(run.id, state, force=False)
        wait_until(lambda: self.state(run).type not in FINAL | {StateType.SCHEDULED}, 60)

    def cancel(self, run):
        """What the Cancel button of the UI does."""
        self.api.set_flow_run_state(run.id, State(type=StateType.CANCELLING))

    def sandbox(self, run, timeout=60):
        """Wait for the live instance of a run and return it."""
        found = wait_until(
            lambda: [one for one in instances_of(self.control, str(run.id)) if one.status in LIVE], timeout
        )
        assert len(found) == 1
        return found[0]

    def delete_tool(self, name):
        """Delete a tool once its instances, which may still be STOPPING, have ended."""
        delete_drained(self.control, self.control.get_tool(name), drain=10, timeout=10)

    def counted(self, instance):
        """What the command has written in the sandbox so far."""
        try:
            return open_plane(self.config.connection(), instance.id).plane.read("counted").decode().split()
        except Exception:
            return []

    def engines(self, run):
        """The processes that execute a run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill(self, run, number=signal.SIGKILL):
        """Send a signal to what executes a run."""
        engines = self.engines(run)
        assert engines
        for process in engines:
            os.kill(process.pid, number)

    def log(self, run):
        """All of a run's log as text."""
        lines, offset = [], 0
        while True:
            chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
            page = self.api.read_logs(chosen, limit=200, offset=offset)
            lines += [entry.message for entry in page]
            offset += len(page)
            if len(page) < 200:
                return "\n".join(lines)

    def advance(self, seconds):
        """Move the emulator's clock."""
        self.emulate("clock", advance=seconds)

    def emulate(self, what, **body):
        """Call a control of the emulator."""
        url = f"{self.exports['AGS_ENDPOINT']}/_emulator/{what}"
        return httpx.post(url, json=body, trust_env=False, timeout=30)

    def live(self):
        known = calmly(self.control.list_instances)
        return [one for one in known if one.status in ("STARTING", "RUNNING", "PAUSED")]

    def tools(self):
        known = calmly(self.control.list_tools)
        return [tool.name for tool in known if tool.tags.get("managed-by") == "ags-flows"]


FLOWS = ("counting", "chaotic", "asking", "provision-and-run", "run-job", "child", "batched", "suspended")


def calmly(look):
    """Look again when a fault that was meant for a flow met the test."""
    for _ in range(20):
        try:
            return look()
        except AGSFlowsError as error:
            if not error.retryable:
                raise
    return look()


def wait_until(condition, timeout):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="session")
def running_stage(tmp_path_factory):
    """The stage itself; tests take `stage`, which points Prefect to it for their length alone."""
    directory = tmp_path_factory.mktemp("stage")
    with (
        prefect_server(directory) as (server, url),
        # Flows in sandboxes report to the Prefect server.
        emulator(directory, "--allow-host-port", url.rpartition(":")[2]) as exports,
    ):
        wait_for_prefect(server, url, directory)
        with SyncPrefectClient(f"{url}/api") as api:
            made = Stage(directory, api, exports, f"{url}/api")
            made.serve()
            try:
                yield made
            finally:
                end(made.runner, signal.SIGINT)


@pytest.fixture
def stage(running_stage):
    with running_stage.settings():
        yield running_stage
