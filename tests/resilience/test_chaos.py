"""Many concurrent flows, killed and hit by faults at random, retried until they end: each step ran exactly once.

`make chaos` runs two hundred, of all kinds in turn; the seed is printed and can be given again as CHAOS_SEED.
CHAOS_KINDS=cells,threads runs some kinds only.
"""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import StateType

from ags_flows.demo.servers import end
from ags_flows.flows import reap
from ags_flows.models import ReapRules, ToolSpec
from ags_flows.ownership import KEPT, flow_runs_of
from ags_flows.worker import AGSWorker
from tests.resilience.sandboxed import TRACE, sandboxed

RUNS = int(os.environ.get("CHAOS_RUNS", "2"))
AT_ONCE = 3
LINES = 8
MOST_STRIKES = 4
ORPHANS_LIVE = 10.0
"""Seconds for which the processes of a pool outlive the one that they work for.

They wait for work forever, and as long as they have its output, Prefect's runner does not see that the run is over.
"""
MOST_ATTEMPTS = 12
PASSWORD = "correct-horse-battery-staple-9781"

LOST = ["CreateSandboxTool", "StartSandboxInstance", "UpdateSandboxInstance", "AcquireSandboxInstanceToken"]
FATAL = ["kill", "kill", "orphans", "term", "death"]
STRIKES = [*FATAL, "lost", "throttled", "failing", "cut", "cut-late", "tokens"]
# What happens to runs of a worker also.
OF_WORKERS = [*STRIKES, "worker", "worker", "worker"]

# Each kind is a flow of job.py, with the number of its units: each has a separate sandbox.
KINDS = {
    "chaotic": 0,
    "pool-of-processes": 2,
    "suspended": 1,
    "parent": 2,
    "retried-tasks": 2,
    "threads": 2,
    "cells": 1,
    "subflows": 2,
    "pooled-subflow": 1,
    "kept": 1,
    "copies": 2,
    "inputs": 1,
    "functions": 1,
    "sandboxed": 1,
}
if importlib.util.find_spec("prefect_dask"):
    KINDS["dask"] = 2
SANDBOXED = str(Path(__file__).with_name("sandboxed.py"))
RAN = ["first", "second", "second", *map(str, range(1, 7))]
OUTPUT = "".join(f"line {number}\n" for number in range(1, 7))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600 + 60 * RUNS),
    pytest.mark.xdist_group("stage"),
]


class FlowWorker:
    """A worker that executes flow runs in sandboxes."""

    tool = "chaos-flows"

    def __init__(self, stage):
        self.stage = stage
        stage.control.create_tool(ToolSpec(name=self.tool, image="prefecthq/prefect:3-latest"))
        template = AGSWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name="sandboxes", type="ags", base_job_template=template)
        stage.api.create_work_pool(pool, overwrite=True)
        code = {"prefect.deployments.steps.set_working_directory": {"directory": "/home/user/code"}}
        stage.api.create_deployment(
            stage.api.create_flow(sandboxed),
            "served",
            work_pool_name="sandboxes",
            entrypoint="sandboxed.py:sandboxed",
            pull_steps=[code],
            job_variables={"tool": self.tool, "lease": "1m", "uploads": {SANDBOXED: "/home/user/code/sandboxed.py"}},
        )
        self.start()

    def start(self):
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "sandboxes", "--type", "ags"]
        environment = {**self.stage.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with (self.stage.directory / "flow-worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self):
        """Kill it, and start another one, which goes on with what this one left."""
        self.end()
        self.start()

    def end(self):
        end(self.process, signal.SIGKILL)


@pytest.fixture
def flow_worker(stage):
    made = FlowWorker(stage)
    yield made
    made.end()
    stage.delete_tool(made.tool)


class Victim:
    """One run with the runs that it starts, and what happens to them."""

    def __init__(self, stage, kind, number, directory):
        self.kind = kind
        self.tool = f"chaos-{number}"
        self.target = directory / f"out-{number}"
        self.units = [f"unit-{one}" for one in range(KINDS[kind])]
        if self.units:
            self.target.mkdir()
            parameters = {"directory": str(self.target), "units": self.units}
        else:
            parameters = {"target": str(self.target), "secret": "chaos-password", "lines": LINES}
        self.runs = [stage.start(kind, tool=self.tool, **parameters)]
        self.attempts = 1
        self.strikes = 0
        self.history = []
        self.orphans = []
        self.orphaned = 0.0
        self.began = time.monotonic()

    def __str__(self):
        return f"{self.kind} {self.tool} after {self.history}"

    def end_orphans(self):
        """Kill the processes of a pool whose parent was killed."""
        for process in self.orphans:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.orphans = []

    def more_runs(self, stage):
        """Add the runs that the run has started."""
        known = {str(run.id) for run in self.runs}
        for unit in self.units:
            started = self.target / f"{unit}.run"
            if started.exists() and (identifier := started.read_text()) and identifier not in known:
                self.runs.append(stage.api.read_flow_run(identifier))


def strike(stage, draw, victim, flow_worker):
    """Do one bad thing."""
    kind = draw.choice(OF_WORKERS if victim.kind == "sandboxed" else STRIKES)
    run = draw.choice(victim.runs)
    victim.strikes += 1
    victim.history.append(kind)
    if kind in ("kill", "term", "orphans"):
        engines = sorted(stage.engines(run), key=created)
        if kind == "orphans":
            victim.orphans, victim.orphaned = [*victim.orphans, *engines[1:]], time.monotonic()
        for process in engines[:1] if kind == "orphans" else engines:
            try:
                process.send_signal(signal.SIGTERM if kind == "term" else signal.SIGKILL)
            except (OSError, psutil.Error):
                continue
    elif kind == "lost":
        stage.emulate("faults", kind="lost", operation=draw.choice(LOST), times=1)
    elif kind == "throttled":
        stage.emulate("faults", kind="error", code="RequestLimitExceeded", message="too fast", operation="*", times=2)
    elif kind == "failing":
        stage.emulate("faults", kind="error", code="InternalError", message="oops", operation="*", times=1)
    elif kind == "cut":
        stage.emulate("streams", kind="cut", times=2)
    elif kind == "cut-late":
        stage.emulate("streams", kind="cut", times=1, after_seconds=0.1)
    elif kind == "worker":
        flow_worker.kill()
    elif kind == "tokens":
        stage.emulate("tokens/expire")
    elif kind == "death":
        for instance in stage.live():
            if str(run.id) in flow_runs_of(instance.metadata):
                stage.emulate(f"instances/{instance.id}/die")


def note_trace(stage, victim):
    """Record the values in the artifact of a flow in a sandbox; other flows record them themselves."""
    (run,) = victim.runs
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[TRACE]))
    latest = max(stage.api.read_artifacts(artifact_filter=mine), key=lambda one: one.created)
    (victim.target / f"{victim.units[0]}.json").write_text(latest.data)


def created(process):
    try:
        return process.create_time()
    except psutil.Error:
        return 0.0


def go_on(stage, victim):
    """Look at the runs; retry one that has ended badly, resume one that waits; return whether all are over."""
    victim.more_runs(stage)
    if victim.orphans and time.monotonic() - victim.orphaned > ORPHANS_LIVE:
        victim.end_orphans()
    over = True
    for run in victim.runs:
        state = stage.state(run)
        over = over and state.type is StateType.COMPLETED
        if state.type is StateType.PAUSED:
            resume(stage, run)
        elif state.type in (StateType.CRASHED, StateType.FAILED):
            told = f"{victim}: {stage.log(run)[-3000:]}"
            assert victim.attempts < MOST_ATTEMPTS, told
            victim.attempts += 1
            victim.history.append(state.name)
            stage.retry(run)
    if not over:
        told = [f"{stage.state(run).type}: {stage.log(run)[-2000:]}" for run in victim.runs]
        assert time.monotonic() - victim.began < 400, f"{victim} does not end: {told}"
    return over


def resume(stage, run):
    """Give a run the input that it waits for; its process may not have ended yet."""
    if not stage.engines(run):
        stage.api.resume_flow_run(run.id, run_input={"note": "yes"})


@pytest.mark.long
def test_whatever_happens_each_step_ran_exactly_once_and_nothing_is_left(stage, flow_worker, tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    draw = random.Random(seed)
    Secret(value=PASSWORD).save("chaos-password", overwrite=True)
    kinds = os.environ.get("CHAOS_KINDS", "").split(",") if os.environ.get("CHAOS_KINDS") else list(KINDS)
    # Some kinds at random where not all have their turn.
    order = draw.sample(kinds, len(kinds))
    waiting, running, done = list(range(RUNS)), [], []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number = waiting.pop(0)
            running.append(Victim(stage, order[number % len(order)], number, tmp_path))
        time.sleep(draw.uniform(0.3, 2.0))
        victim = draw.choice(running)
        if victim.strikes < MOST_STRIKES:
            strike(stage, draw, victim, flow_worker)
        for victim in list(running):
            if go_on(stage, victim):
                running.remove(victim)
                done.append(victim)
                if victim.kind == "sandboxed":
                    note_trace(stage, victim)
    left = [f"{one.tool_name} of {owner_of(one, done)}" for one in stage.live() if KEPT not in one.metadata]
    problems = [f"{victim}: {problem}" for victim in done for problem in problems_of(victim)]
    instances = Counter(one for victim in done for one in instances_of(victim))
    problems += [f"{one} was used by {count} units" for one, count in instances.items() if count > 1]
    print(f"{len(done)} runs: {dict(Counter(victim.kind for victim in done))}")
    print(f"strikes: {dict(Counter(what for victim in done for what in victim.history))}; left to their lease: {left}")
    assert not problems, "\n".join(problems)
    nothing_is_left(stage, done)


def owner_of(instance, done):
    """Return the run of an instance, as text."""
    runs = flow_runs_of(instance.metadata)
    return next((str(victim) for victim in done if any(str(run.id) in runs for run in victim.runs)), "no run")


def problems_of(victim):
    """Return what is wrong with the traces that a run left."""
    if victim.kind == "chaotic":
        return problems_of_chaotic(victim)
    problems = []
    for unit in victim.units:
        found = json.loads((victim.target / f"{unit}.json").read_text())
        if found["ran"] != RAN:
            problems.append(f"{unit} in {found['instance']} ran {found['ran']}")
        if found["output"] != OUTPUT:
            problems.append(f"{unit} in {found['instance']} got the output {found['output']!r}")
    if victim.kind == "kept" and (victim.target / "kept").read_text() in instances_of(victim):
        problems.append("the sandbox that was kept was used again")
    return problems


def problems_of_chaotic(victim):
    counted = (victim.target / "all").read_text().split()
    output = victim.target.with_name(victim.target.name + ".out").read_text()
    problems = []
    if counted != ["first", "second", "second", *map(str, range(1, LINES + 1))]:
        problems.append(f"ran {counted}")
    if output != "".join(f"line {number} ********\n" for number in range(1, LINES + 1)):
        problems.append(f"got the output {output!r}")
    if (victim.target / "in.txt").read_text() != "edited\n" * 1000:
        problems.append("the file that was sent is not as a command left it")
    return problems


def instances_of(victim):
    return [json.loads(path.read_text())["instance"] for path in sorted(Path(victim.target).glob("unit-*.json"))]


def nothing_is_left(stage, done):
    # A sandbox that is kept is stopped by a person.
    for instance in stage.live():
        if KEPT in instance.metadata:
            stage.control.stop_instance(instance.id)
    stage.advance(61)
    stage.wait_until(lambda: not stage.live(), 20)
    # A tool whose deletion met several faults in a row, or that a kept sandbox needed, is left to the reaper.
    reaped = reap(rules=ReapRules(grace_minutes=0), config=stage.config)
    told = [f"{one.kind} {one.tool}: {one.reason} {one.problem}" for one in reaped.stopped]
    print(f"reaped: {told}")
    assert stage.tools() == [], told
    logs = "".join(stage.log(run) for victim in done for run in victim.runs)
    stored = b"".join(path.read_bytes() for path in (stage.directory / "prefect").rglob("*") if path.is_file())
    for secret in (PASSWORD, stage.exports["TENCENTCLOUD_SECRET_KEY"], "sit_"):
        assert secret not in logs
        assert secret.encode() not in stored, secret
