"""Many flows at once, killed and hit by faults at random, retried until they end: each step ran exactly once.

`make chaos` runs two hundred; the seed is printed and can be given again as CHAOS_SEED.
"""

import os
import random
import signal
import time

import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import StateType

from ags_flows.flows import reap
from ags_flows.models import ReapRules

RUNS = int(os.environ.get("CHAOS_RUNS", "2"))
AT_ONCE = 3
LINES = 8
MOST_ATTEMPTS = 12
PASSWORD = "correct-horse-battery-staple-9781"

LOST = ["CreateSandboxTool", "StartSandboxInstance", "UpdateSandboxInstance", "AcquireSandboxInstanceToken"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600 + 60 * RUNS),
    pytest.mark.xdist_group("stage"),
]


class Victim:
    """One run, and what happens to it."""

    def __init__(self, stage, number, directory):
        self.tool = f"chaos-{number}"
        self.target = directory / f"out-{number}"
        self.run = stage.start("chaotic", tool=self.tool, target=str(self.target), secret="chaos-password", lines=LINES)
        self.attempts = 1
        self.history = []


def strike(stage, draw, victim):
    """Do one bad thing."""
    kind = draw.choice(["kill", "kill", "term", "lost", "throttled", "failing", "cut", "cut-late", "tokens", "death"])
    victim.history.append(kind)
    if kind in ("kill", "term"):
        number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
        for process in stage.engines(victim.run):
            try:
                process.send_signal(number)
            except OSError:
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
    elif kind == "tokens":
        stage.emulate("tokens/expire")
    elif kind == "death":
        for instance in stage.live():
            if instance.tool_name == victim.tool:
                stage.emulate(f"instances/{instance.id}/die")


def go_on(stage, victim):
    """Look at a run; retry it when it has ended badly; return whether it is over."""
    state = stage.state(victim.run)
    if state.type is StateType.COMPLETED:
        return True
    if state.type in (StateType.CRASHED, StateType.FAILED):
        told = f"{victim.tool} after {victim.history}: {stage.log(victim.run)[-3000:]}"
        assert victim.attempts < MOST_ATTEMPTS, told
        victim.attempts += 1
        stage.retry(victim.run)
    return False


def test_whatever_happens_each_step_ran_exactly_once_and_nothing_is_left(stage, tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    draw = random.Random(seed)
    Secret(value=PASSWORD).save("chaos-password", overwrite=True)
    waiting, running, done = list(range(RUNS)), [], []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(Victim(stage, waiting.pop(0), tmp_path))
        time.sleep(draw.uniform(0.3, 2.0))
        victim = draw.choice(running)
        if len(victim.history) < 4:
            strike(stage, draw, victim)
        for victim in list(running):
            if go_on(stage, victim):
                running.remove(victim)
                done.append(victim)
    check(stage, done)


def check(stage, done):
    logs = ""
    for victim in done:
        told = f"{victim.tool} after {victim.history}"
        counted = (victim.target / "all").read_text().split()
        assert counted == ["first", "second", "second", *map(str, range(1, LINES + 1))], told
        output = victim.target.with_name(victim.target.name + ".out").read_text()
        assert output == "".join(f"line {number} ********\n" for number in range(1, LINES + 1)), told
        assert (victim.target / "in.txt").read_text() == "uploaded\n" * 1000, told
        logs += stage.log(victim.run)
    stage.advance(61)
    stage.wait_until(lambda: not stage.live(), 20)
    # A tool whose deletion met several faults in a row is left to the reaper.
    reaped = reap(rules=ReapRules(grace_minutes=0), config=stage.config)
    told = [f"{one.kind} {one.tool}: {one.reason} {one.problem}" for one in reaped.stopped]
    print(f"{len(done)} runs; reaped: {told}")
    assert stage.tools() == [], told
    stored = b"".join(path.read_bytes() for path in (stage.directory / "prefect").rglob("*") if path.is_file())
    for secret in (PASSWORD, stage.exports["TENCENTCLOUD_SECRET_KEY"], "sit_"):
        assert secret not in logs
        assert secret.encode() not in stored, secret
