"""The reaper among ten thousand instances, and, simulated, among a hundred thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.cloud.pace import OTHER_RATE, RATES, Pace, PacedControlPlane
from ags_flows.demo.servers import (
    clean_environment,
    prefect_environment,
    prefect_server,
    read_exports,
    wait_for_prefect,
)
from ags_flows.errors import ThrottledError
from ags_flows.models import ReapReport, ReapRules
from ags_flows.ownership import Frame, Holder, Owner, Place, Step, label
from ags_flows.reaping.owners import Owned
from ags_flows.reaping.reaper import Reaper
from bench.figure import Figure

INSTANCES, ORPHANS = 10_000, 2_000
SIMULATED, SIMULATED_ORPHANS = 100_000, 20_000
EACH = 80
"""Instances of one flow run: as those of a batch."""

RULES = ReapRules(grace_minutes=0, at_most=SIMULATED)
LISTS = "DescribeSandboxInstanceList"
STOPS = "StopSandboxInstance"


def figures() -> Iterator[Figure]:
    """Run the flow `reap` once, in a separate process, against a real Prefect server."""
    yield from _real()
    yield from _simulated()


def _real() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="ags-bench-") as name, prefect_server(Path(name)) as (server, url):
        directory = Path(name)
        wait_for_prefect(server, url, directory)
        settings = {PREFECT_API_URL: f"{url}/api"}
        with records(directory) as (exports, switch_limits_on), temporary_settings(settings):
            config = config_of(exports)
            with get_client(sync_client=True) as client:
                doomed = _populate(client, config)
            switch_limits_on()
            environment = {**prefect_environment(directory), **exports, "PREFECT_API_URL": f"{url}/api"}
            command = [sys.executable, "-m", "bench.reaping"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            live = {one.id for one in PacedControlPlane(config.connection()).each_instance() if one.status == "RUNNING"}
        stops = told["stops"]
        rate = (len(stops) - 1) / (max(stops) - min(stops))
        title = f"reap of {INSTANCES:,} instances with {ORPHANS:,} orphans"
        yield Figure(f"{title}: calls that list", told["lists"], "", 120)
        yield Figure(f"{title}: of the allowed rate of stops", 100 * rate / RATES[STOPS], "%", 90.0, at_least=True)
        yield Figure(f"{title}: memory of the process", told["memory"] / 1e6, "MB", 250.0)
        wrong = len(live & doomed) + (INSTANCES - ORPHANS - len(live - doomed))
        yield Figure(f"{title}: wrong ones", wrong, "", 0, detail=f"{len(live):,} live")


@contextmanager
def records(directory: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield the environment of an emulator of records, and a function that switches its limits on."""
    env_file = directory / "records.env"
    command = [sys.executable, "-m", "bench.records", str(env_file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        while not env_file.exists():
            time.sleep(0.05)

        def switch_limits_on() -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("limits\n")
            process.stdin.flush()
            process.stdout.readline()

        try:
            yield read_exports(env_file), switch_limits_on
        finally:
            process.terminate()


def config_of(exports: Mapping[str, str]) -> AGSConfig:
    """Return the configuration for an emulator of another process."""
    keys = TencentCloudCredentials(
        secret_id=exports["TENCENTCLOUD_SECRET_ID"], secret_key=exports["TENCENTCLOUD_SECRET_KEY"]
    )
    return AGSConfig(http_endpoint=exports["AGS_ENDPOINT"], domain=exports["AGS_ENDPOINT"], credentials=keys)


def _populate(client: SyncPrefectClient, config: AGSConfig) -> set[str]:
    """Start all instances, of runs that go on and of runs that are over, and return the ids of the latter's."""
    flow_id = client.create_flow_from_name("bench")

    def run(over: bool) -> FlowRun:
        answer = client._client.post(
            "/flow_runs/",
            json={
                "flow_id": str(flow_id),
                "state": (Running() if not over else Completed()).model_dump(mode="json", include={"type", "name"}),
            },
        )
        return FlowRun.model_validate(answer.json())

    runs = [(run(over=number < ORPHANS // EACH), number < ORPHANS // EACH) for number in range(INSTANCES // EACH)]
    control = config.control_plane()
    doomed: set[str] = set()

    def start(number: int) -> None:
        flow_run, over = runs[number // EACH]
        owner = Owner(str(flow_run.id), flow_run_name=flow_run.name, flow_id=str(flow_id))
        holder = Holder((Frame("flow", flow_run.id.hex), Frame("call", str(number))))
        step = Step("start", str(number), owner.flow_run_id, Place(), holder)
        own = label(step, owner, datetime.now(timezone.utc))
        instance = control.start_instance(tool="base", timeout="12h", metadata=own)
        if over:
            doomed.add(instance.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(INSTANCES)))
    time.sleep(2)
    return doomed


def main() -> None:
    """Run the flow in this process, and print what it took."""
    import psutil

    from ags_flows.cloud.transport import Transport
    from ags_flows.flows import reap

    calls: list[tuple[str, float]] = []
    send = Transport.call

    def counted(self: Transport, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        calls.append((action, time.monotonic()))
        return send(self, action, parameters)

    Transport.call = counted  # type: ignore[method-assign]
    most = 0
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, psutil.Process(os.getpid()).memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        reap(rules=RULES)
    finally:
        over.set()
        watcher.join()
    lists = sum(action == LISTS for action, _ in calls)
    stops = [moment for action, moment in calls if action == STOPS]
    print(json.dumps({"lists": lists, "stops": stops, "memory": most}))


class VirtualClock:
    """Time that passes only while a thread waits for it. Thread-safe."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the seconds that have passed."""
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds


class SimulatedAGS(PacedControlPlane):
    """Records of instances and AGS's rates for each action, counted second by second of a virtual clock."""

    def __init__(self, config: AGSConfig, clock: VirtualClock) -> None:
        super().__init__(config.connection())
        self._clock = clock
        self._own_paces: dict[str, Pace] = {}
        self._counted: dict[tuple[str, int], int] = {}
        self._guard = threading.Lock()
        self.throttled = 0
        self.stopped: set[str] = set()
        created = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat(timespec="seconds")
        self.doomed: set[str] = set()
        self._records: dict[str, dict[str, Any]] = {}
        for number in range(SIMULATED):
            orphan = number % (SIMULATED // SIMULATED_ORPHANS) == 0
            identifier = uuid.UUID(int=number).hex
            metadata = {"managed-by": "ags-flows", "flow-run-id": f"{'over' if orphan else 'active'}-{number // EACH}"}
            self._records[identifier] = {
                "InstanceId": identifier,
                "ToolName": "base",
                "Status": "RUNNING",
                "CreateTime": created,
                "Metadata": [{"Name": name, "Value": value} for name, value in metadata.items()],
            }
            if orphan:
                self.doomed.add(identifier)
        self._order = list(self._records)

    def call(self, action: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call at the pace of the real class, and respond as AGS would."""
        pace = self._own_pace(action)
        while True:
            pace.wait()
            try:
                return self._answer(action, parameters or {})
            except ThrottledError:
                pace.hold(1.0)

    def _own_pace(self, action: str) -> Pace:
        with self._guard:
            if action not in self._own_paces:
                self._own_paces[action] = Pace(self._pace(action).rate, self._clock.now, self._clock.sleep)
            return self._own_paces[action]

    def _answer(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        with self._guard:
            key = (action, int(self._clock.now()))
            self._counted[key] = self._counted.get(key, 0) + 1
            if self._counted[key] > RATES.get(action, OTHER_RATE):
                self.throttled += 1
                raise ThrottledError(f"{action}: too many")
            if action == STOPS:
                self.stopped.add(parameters["InstanceId"])
                return {}
            if "InstanceIds" in parameters:
                return {"InstanceSet": [self._records[one] for one in parameters["InstanceIds"]]}
            start = int(parameters.get("NextToken") or 0)
            page = self._order[start : start + 100]
            following = start + 100
            return {
                "InstanceSet": [self._records[one] for one in page],
                "NextToken": str(following) if following < SIMULATED else None,
            }


class SimulatedOwners:
    """Knows by the run's name."""

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return what is known, without requests."""
        long_ago = datetime.now(timezone.utc) - timedelta(minutes=30)
        return {
            run: Owned("terminal", "Completed", ended_at=long_ago)
            if run.startswith("over")
            else Owned("active", "Running")
            for run in runs
        }


def _simulated() -> Iterator[Figure]:
    clock = VirtualClock()
    control = SimulatedAGS(AGSConfig(credentials=TencentCloudCredentials(secret_id="a", secret_key="b")), clock)
    report: ReapReport = Reaper(control, SimulatedOwners(), RULES).run()
    best = SIMULATED / 100 / OTHER_RATE + SIMULATED_ORPHANS / RATES[STOPS]
    title = f"simulated reap of {SIMULATED:,} with {SIMULATED_ORPHANS:,} orphans"
    share = 100 * best / clock.now()
    yield Figure(f"{title}: of the allowed rates", share, "%", 90.0, at_least=True, detail=f"{clock.now():.0f} s")
    yield Figure(f"{title}: requests refused", control.throttled, "", 0)
    yield Figure(f"{title}: wrong ones", len(control.doomed ^ control.stopped), "", 0, detail=f"{report.seen:,} seen")


if __name__ == "__main__":
    main()
