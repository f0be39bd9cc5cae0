"""Generated programs of flows, tasks, sessions and commands that crash at a random call: nothing runs twice or is left.

COMPOSITIONS=200 runs more programs than the ten of the suite.
"""

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from ags_flows.cloud.data_planes import close_plane
from ags_flows.ownership import LIVE
from ags_flows.session import Opening
from ags_flows.testing import config_for

EXAMPLES = int(os.environ.get("COMPOSITIONS", "6"))
MOST_ATTEMPTS = 4
COMMANDS = ("one", "two")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180 + 20 * EXAMPLES), pytest.mark.usefixtures("prefect_server")]


@dataclass(frozen=True)
class Node:
    """A part of a program: `run`, `session`, `task`, `subflow`, `map`, with what is inside."""

    kind: str
    label: str = ""
    inside: tuple["Node", ...] = ()

    def __repr__(self):
        return f"{self.kind}({self.label}{', '.join(map(repr, self.inside))})"

    @property
    def sessions(self):
        return (self.kind == "session") + sum(node.sessions for node in self.inside)

    @property
    def calls(self):
        return (self.kind == "run") + sum(node.calls for node in self.inside)


run = st.sampled_from(COMMANDS).map(lambda command: Node("run", command))


def blocks(inner):
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        some.map(lambda inside: Node("task", "", inside)),
        some.map(lambda inside: Node("subflow", "", inside)),
        some.map(lambda inside: Node("session", "", inside)),
        some.map(lambda inside: Node("map", "", inside)),
    )


programs = (
    st.recursive(run, blocks, max_leaves=6)
    .map(lambda node: Node("session", "", (node, Node("run", "one"), Node("run", "one"))))
    .flatmap(lambda one: st.sampled_from([Node("task", "", (one,)), Node("map", "", (one, one)), one]))
    .filter(lambda node: node.sessions <= 5)
)


class Crash(Exception):
    """The process is killed here."""


@dataclass
class Execution:
    """One execution of a program: crashes at some of its calls, and keeps what each sandbox ran.

    Attributes:
        crashes: Numbers of the calls that crash, before (even) or behind (odd) the command.
        ran: For each session that came to its end: its sandbox, the commands it called, and what ran in the sandbox.
    """

    config: object
    crashes: frozenset[int]
    ran: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    calls: int = 0
    open: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def do(self, node, sandbox, called):
        if node.kind == "run":
            self.call(node.label, sandbox, called)
        elif node.kind == "session":
            with self.session() as inner:
                expected = []
                self.each(node, inner, expected)
                found = inner.run("cat ran 2>/dev/null").stdout.split()
                with self.lock:
                    self.ran.append((inner.instance.id, sorted(expected), sorted(found)))
        elif node.kind == "task":
            step = task(self.inside, name="step", retries=1, retry_delay_seconds=0, cache_policy=NO_CACHE)
            called.extend(step(node, Holding(sandbox)))
        elif node.kind == "subflow":
            called.extend(flow(self.inside, name="inner", retries=1)(node, Holding(sandbox)))
        elif node.kind == "map":
            step = task(self.one, name="mapped", cache_policy=NO_CACHE)
            futures = [step.submit(child, Holding(sandbox)) for child in node.inside]
            for future in futures:
                future.wait()
            for future in futures:
                called.extend(future.result())

    def each(self, node, sandbox, called):
        for child in node.inside:
            self.do(child, sandbox, called)

    def one(self, node, holding):
        called = []
        self.do(node, holding.sandbox, called)
        return called

    def inside(self, node, holding):
        called = []
        self.each(node, holding.sandbox, called)
        return called

    def call(self, command, sandbox, called):
        with self.lock:
            number, self.calls = self.calls, self.calls + 1
        crashes = number // 2 in self.crashes
        if sandbox is None or (crashes and number % 2 == 0):
            if crashes:
                raise Crash
            return
        sandbox.run(f"echo {command} >> ran", check=True)
        called.append(command)
        if crashes:
            raise Crash

    @contextmanager
    def session(self):
        """Do what `sandbox_session` does, but leave everything as it is where the process would have been killed."""
        opening = Opening(self.config, [], 600, {}, False)
        sandbox = opening.open("base", None, None, "")
        instance = sandbox.instance.id
        with self.lock:
            assert instance not in self.open, f"{instance} is shared by two sessions"
            self.open.add(instance)
        try:
            yield sandbox
        except Crash:
            opening._leased.lease.release()
            close_plane(self.config.connection(), instance)
            raise
        except BaseException as error:
            opening.close("failed", "stop", error)
            raise
        else:
            opening.close("completed", "stop")
        finally:
            with self.lock:
                self.open.discard(instance)


@dataclass(frozen=True)
class Holding:
    """A session as a parameter: it counts by its place."""

    sandbox: object

    @property
    def place_key(self):
        return self.sandbox.place_key if self.sandbox is not None else ""


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # A program is a matter of seconds: what fails is printed as it is.
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
@given(program=programs, crashes=st.frozensets(st.integers(0, 8), max_size=2))
def test_whatever_crashes_each_call_ran_once_in_its_own_sandbox_and_nothing_is_left(
    ags_emulator_process, program, crashes
):
    ags_emulator_process.reset()
    config = config_for(ags_emulator_process)
    note(f"{program!r}, crashes at {sorted(crashes)}")
    execution = Execution(config, crashes)

    @flow(name="program", retries=MOST_ATTEMPTS)
    def whole():
        execution.do(program, None, [])

    whole()
    for instance, expected, found in execution.ran:
        assert found == expected, instance
    assert len({instance for instance, _, _ in execution.ran}) == len(execution.ran)
    assert [one.id for one in config.control_plane().list_instances() if one.status in LIVE] == []
