"""Real servers, workers and runners for `make deployed`: minutes, and so not in the default run."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.states import State

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.demo.servers import child, emulator, end, free_port, prefect_environment, wait_for
from ags_flows.ownership import LIVE

ROOT = Path(__file__).parents[3]
FINAL = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
QUICK = {
    # What takes a minute by default, in seconds; the shortest heartbeat that Prefect allows.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))
            if not os.environ.get("DEPLOYED"):
                item.add_marker(pytest.mark.skip(reason="real servers, workers and a browser, minutes: make deployed"))


class Stage:
    """A Prefect server, an emulator of AGS, and a clean clone of the project from which is deployed."""

    def __init__(self, directory, url, environment, exports, api):
        self.directory, self.url = directory, url
        self.environment = {**environment, **exports, "PREFECT_API_URL": f"{url}/api"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.api = api
        self.exports = exports
        keys = TencentCloudCredentials(
            secret_id=exports["TENCENTCLOUD_SECRET_ID"], secret_key=exports["TENCENTCLOUD_SECRET_KEY"]
        )
        endpoint = exports["AGS_ENDPOINT"]
        self.config = AGSConfig(http_endpoint=endpoint, domain=endpoint, credentials=keys)
        self.control = self.config.control_plane()
        self.workers = {}
        self.clone = directory / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)

    def call(self, *command, **more):
        """Run a command in the clone and return what it wrote."""
        done = subprocess.run(
            command,
            cwd=self.clone,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def beside(self, name, *command, first=signal.SIGTERM, environment=None):
        """Run a process for the length of a block."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.clone,
                env=environment or self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process, first)

    def worker(self, name, environment=None):
        """A process worker; the one that asks first takes what there is, up to its limit."""
        command = ["prefect", "worker", "start", "--pool", "machines", "--type", "process", "--name", name]
        return self.beside(name, *command, "--limit", "4", environment=environment)

    def deploy(self):
        """What deployments/README.md describes."""
        self.call("python", "blocks/register.py")
        self.call("prefect", "work-pool", "create", "machines", "--type", "process", "--overwrite")
        return self.call("prefect", "--no-prompt", "deploy", "--all")

    def deployment(self, name):
        return self.api.read_deployment_by_name(name)

    def start(self, name, **parameters):
        return self.api.create_flow_run_from_deployment(self.deployment(name).id, parameters=parameters)

    def state(self, run):
        return self.api.read_flow_run(run.id).state

    def ended(self, run, timeout=120):
        wait_until(lambda: self.state(run).type in FINAL, timeout, lambda: self.log(run))
        return self.state(run)

    def completed(self, run, timeout=120):
        state = self.ended(run, timeout)
        assert state.type is StateType.COMPLETED, f"{state!r}\n{self.log(run)}"
        return run

    def cancel(self, run):
        """What the Cancel button of the UI does."""
        self.api.set_flow_run_state(run.id, State(type=StateType.CANCELLING))

    def retry(self, run):
        """What the Retry button of the UI does, once the crash is reported completely."""
        # A worker reports a crash again, seconds later, and would overwrite an earlier retry.
        time.sleep(8)
        self.api.set_flow_run_state(run.id, State(type=StateType.SCHEDULED, name="AwaitingRetry"), force=False)
        wait_until(lambda: self.state(run).type not in FINAL, 60)

    def kill(self, run):
        """End whatever executes a run, as a machine that goes down would."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                    process.kill()
            except (psutil.Error, OSError):
                continue

    def runs(self, name):
        deployment = self.deployment(name).id
        return [run for run in self.api.read_flow_runs(limit=200) if run.deployment_id == deployment]

    def artifacts(self, run):
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        return {one.key: one.data for one in self.api.read_artifacts(artifact_filter=chosen)}

    def log(self, run):
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return "\n".join(entry.message for entry in self.api.read_logs(chosen, limit=200))

    def worker_of(self, run):
        """The worker that executes a run. The flow gives the run another name when it begins."""
        logs = {name: (self.directory / f"{name}.log").read_text() for name in ("one", "two")}
        return next((name for name, text in logs.items() if f"'{run.name}' submitted to infrastructure" in text), None)

    def live(self, run=None):
        known = [one for one in self.control.list_instances() if one.status in LIVE]
        return [one for one in known if run is None or one.metadata.get("flow-run-id") == str(run.id)]

    def advance(self, seconds):
        """Move the emulator's clock."""
        url = f"{self.exports['AGS_ENDPOINT']}/_emulator/clock"
        httpx.post(url, json={"advance": seconds}, trust_env=False, timeout=30).raise_for_status()

    wait_until = staticmethod(lambda condition, timeout: wait_until(condition, timeout))


def wait_until(condition, timeout, told=lambda: ""):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen in time\n{told()}"
        time.sleep(0.5)
    return found


def _answers(url):
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def server_of(directory, environment, *arguments):
    """Run a Prefect server and wait until it responds. Yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = {**environment, "PREFECT_UI_API_URL": f"{url}/api", "PREFECT_UI_URL": url}
    log = directory / "prefect-server.log"
    with child([*command, *arguments], log, own) as process:
        wait_for(lambda: _answers(f"{url}/api/health"), process, "The Prefect server", log, 240)
        yield url


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The set-up of one machine: SQLite, and whatever a test starts beside it."""
    directory = tmp_path_factory.mktemp("deployed")
    environment = {**prefect_environment(directory), **QUICK}
    with (
        server_of(directory, environment) as url,
        # Flows in sandboxes report to the Prefect server.
        emulator(directory, "--allow-host-port", url.rpartition(":")[2]) as exports,
    ):
        with SyncPrefectClient(f"{url}/api") as api:
            yield Stage(directory, url, environment, exports, api)


@pytest.fixture(scope="session")
def worked(stage):
    """The stage with all of prefect.yaml deployed, and one process worker."""
    stage.deploy()
    with stage.worker("one"):
        yield stage


@pytest.fixture
def unconfigured(stage):
    """The stage deployed, with saved blocks for the emulator, and a worker whose environment knows no AGS."""
    stage.deploy()
    blocks = (
        "from ags_flows import AGSConfig, SandboxJob;"
        f"AGSConfig(http_endpoint={stage.exports['AGS_ENDPOINT']!r},"
        f" secret_id={stage.exports['TENCENTCLOUD_SECRET_ID']!r},"
        f" secret_key={stage.exports['TENCENTCLOUD_SECRET_KEY']!r}).save('emulator', overwrite=True);"
        "SandboxJob(command='echo hello', tool='base', config=AGSConfig.load('emulator'))"
        ".save('of-the-form', overwrite=True)"
    )
    stage.call("python", "-c", blocks)
    bare = {name: value for name, value in stage.environment.items() if name not in stage.exports}
    with stage.worker("one", bare):
        yield stage


@pytest.fixture(scope="session")
def larger_stage(tmp_path_factory):
    """The set-up of deployments/compose.yaml without its containers: PostgreSQL, Redis, services apart, two workers."""
    directory = tmp_path_factory.mktemp("larger")
    with postgres() as database, redis(directory) as port, emulator(directory) as exports:
        environment = {
            **prefect_environment(directory),
            **QUICK,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(port),
        }
        prefect = [sys.executable, "-m", "prefect"]
        subprocess.run([*prefect, "server", "database", "upgrade", "--yes"], env=environment, check=True, timeout=240)
        environment["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"
        services = child([*prefect, "server", "services", "start"], directory / "services.log", environment)
        with server_of(directory, environment, "--no-services") as url, services:
            with SyncPrefectClient(f"{url}/api") as api:
                made = Stage(directory, url, environment, exports, api)
                made.deploy()
                with made.worker("one") as one, made.worker("two") as two:
                    made.workers = {"one": one, "two": two}
                    yield made


@contextlib.contextmanager
def postgres():
    """Run a dedicated PostgreSQL on a free port. Yield the URL of its database for Prefect."""
    programs = _programs("postgresql", lambda: sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))[-1].parent
    directory = Path(tempfile.mkdtemp(prefix="ags-flows-postgres-"))
    # PostgreSQL does not run as root; its package has made a user for it.
    other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if other:
        shutil.chown(directory, "postgres")
    port, data = free_port(), directory / "data"
    try:
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "prefect", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*other, *initdb], cwd=directory, check=True, capture_output=True, timeout=120)
        command = [*other, str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1"]
        command += ["-p", str(port), "-k", str(directory)]
        with child(command, directory / "postgres.log", os.environ) as process:
            ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
            wait_for(
                lambda: subprocess.run(ready, capture_output=True).returncode == 0,
                process,
                "PostgreSQL",
                directory / "postgres.log",
                60,
            )
            create = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"]
            subprocess.run(create, check=True, timeout=60)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
            stop = [str(programs / "pg_ctl"), "-D", str(data), "stop", "-m", "immediate"]
            subprocess.run([*other, *stop], cwd=directory, capture_output=True, timeout=60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def redis(directory):
    """Run a dedicated Redis on a free port. Yield the port."""
    program = _programs("redis-server", lambda: [found] if (found := shutil.which("redis-server")) else [])[0]
    port, log = free_port(), directory / "redis.log"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with child(command, log, os.environ) as process:
        wait_for(lambda: b"Ready to accept" in log.read_bytes(), process, "Redis", log, 30)
        yield port


def _programs(package, look):
    """Find the programs of a Debian package; install it where it is not there and we are root."""
    pytest.importorskip("prefect_redis", reason="prefect-redis is not installed: make deployed installs it")
    if not look() and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", *command], env=environment, capture_output=True, timeout=400)
    return look() or pytest.skip(f"no {package} here, and it cannot be installed: that needs Debian, root and a mirror")
