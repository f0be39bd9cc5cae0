"""What claims cost: requests that open a session, equal commands in a row, and places of siblings to pass."""

from __future__ import annotations

import itertools
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx

from ags_flows import AGSConfig, sandbox_session
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.claims import Request, claim
from ags_flows.models import Instance
from ags_flows.ownership import Frame, Holder, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.tasks import exec_command, pause_instance
from bench.figure import Figure, seconds
from bench.sandbox import running_emulator_process, running_sandbox

FRESH, TAKE_OVER, RESUMING_TAKE_OVER = 2, 4, 6
"""Requests. A take-over is the list, a token, the claim, and the update of lease and holder; a resume adds two."""

COMMANDS, BLOCK, LAST = 1_000, 50, 4
PLACES, CLAIMS = 1_000, 9
KIND = "bench"


def figures() -> Iterator[Figure]:
    """Count requests; time commands and claims in one sandbox."""
    yield from requests()
    with running_sandbox() as (config, instance):
        yield from commands_in_a_row(config, instance)
        yield from places_to_pass(open_plane(config.connection(), instance.id).plane)


def requests() -> Iterator[Figure]:
    """Count the requests that open a session. Pauses and resumes take no time, and polls of a start count once."""
    with running_emulator_process() as config:
        for step in ("instance.pause", "instance.resume"):
            told = httpx.post(f"{config.http_endpoint}/_emulator/transitions", json={"step": step, "mode": "at_once"})
            told.raise_for_status()
        config.control_plane().list_tools()
        yield _opening(config, "fresh", FRESH, 1)
        yield _opening(config, "take-over", TAKE_OVER, 2)
        yield _opening(config, "take-over of a paused one", RESUMING_TAKE_OVER, 2, paused=True)


def _opening(config: AGSConfig, name: str, limit: int, attempts: int, paused: bool = False) -> Figure:
    """Open one session in each of several attempts, and count the requests of the last one."""
    run = uuid.uuid4().hex
    opened = [sandbox_session("base", config=config) for _ in range(attempts)]
    sessions = []
    before: list[tuple[str, str]] = []
    for number, session in enumerate(opened, start=1):
        before = _received(config)
        with attempt(number, run):
            sessions.append(session.__enter__())
        if number < attempts and paused:
            pause_instance.fn(sessions[-1].instance, config=config)
    received = _received(config)[len(before) :]
    if attempts == 1:
        received = [one for one, _ in itertools.groupby(received)]
    assert len({session.instance.id for session in sessions}) == 1, sessions
    for session in reversed(opened):
        session.__exit__(None, None, None)
    planes = Counter(plane for plane, _ in received)
    detail = f"control plane {planes['cloud']}, data plane {planes['sandbox']}"
    return Figure(f"requests to open a session: {name}", len(received), "", limit, detail=detail)


def _received(config: AGSConfig) -> list[tuple[str, str]]:
    """Return plane and operation of each request that the emulator has received: not more than 200."""
    # A request is noted right after its response was sent.
    time.sleep(0.2)
    entries = httpx.get(f"{config.http_endpoint}/_emulator/requests").json()["requests"]
    received = [(entry["plane"], entry["operation"]) for entry in reversed(entries)]
    return [one for one in received if one[0] in ("cloud", "e2b", "sandbox")]


def commands_in_a_row(config: AGSConfig, instance: Instance) -> Iterator[Figure]:
    """Run equal commands and different ones, block by block in turns."""

    def run(command: str) -> float:
        return seconds(lambda: exec_command.fn(instance, command, log_output=False, config=config))

    equal: list[float] = []
    different: list[float] = []
    with attempt(1):
        for first in range(0, COMMANDS, BLOCK):
            equal.append(sum(run(": equal") for _ in range(BLOCK)))
            different.append(sum(run(f": {number}") for number in range(first, first + BLOCK)))
    ratios = [ours / theirs for ours, theirs in zip(equal, different, strict=True)]
    title = "equal durable commands / different ones"
    detail = f"{sum(equal) / COMMANDS * 1000:.1f} ms / {sum(different) / COMMANDS * 1000:.1f} ms"
    yield Figure(f"{COMMANDS:,} {title}", statistics.median(ratios), "x", 1.3, detail=detail)
    end = statistics.median(ratios[-LAST:])
    yield Figure(f"the last {LAST * BLOCK} of {COMMANDS:,} {title}", end, "x", 1.3)


def places_to_pass(plane: DataPlane) -> Iterator[Figure]:
    """Claim a place behind those of a thousand siblings, without a hint where the first free one is."""
    family = "f" * 32
    sibling, places = _holder("sibling"), f"~/.ags_flows/{plane.instance_id}/{KIND}"
    plane.run(
        f"mkdir -p {places} && cd {places} && for n in {{0..{PLACES - 1}}}; do "
        f'mkdir {family}.$n && echo "{sibling}" >{family}.$n/holder; done',
        timeout=120,
    )

    def measured(**more: object) -> float:
        taken = []
        for number in range(CLAIMS):
            request = Request(KIND, holder=_holder(f"mine{number}"), **more)  # type: ignore[arg-type]
            began = time.perf_counter()
            claimed = claim(plane, request)
            taken.append(time.perf_counter() - began)
            assert claimed.outcome == "new", claimed
        return statistics.median(taken)

    free = measured(family="e" * 32)
    passing = measured(family=family)
    detail = f"{free * 1000:.0f} ms for a free place"
    yield Figure(f"a claim that passes {PLACES:,} places without a hint", passing, "s", 1.0, detail=detail)


def attempt(number: int, run: str = "a" * 32) -> AbstractContextManager[None]:
    """Make the calls of a block calls of one attempt of a flow run."""
    return acting_as(Execution(frames=(Frame("flow", run, number),), owner=Owner("run-1")))


def _holder(task: str) -> Holder:
    """Return a call of a task in a flow run."""
    return Holder((Frame("flow", "a" * 32), Frame("task", task), Frame("call", uuid.uuid4().hex)))
