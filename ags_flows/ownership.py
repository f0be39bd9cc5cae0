"""Who holds a sandbox, a command or a cell: holders, claims, steps, and the metadata that carries them.

Everything here is a value or a pure function. A **holder** is the path of executions from the outermost one down to a
call. `relation` compares two holders and so decides what a caller may do with something that carries the other one.
A **step** is what a call does and where; its family is the same in every attempt, whoever executes it. Steps of one
family are numbered 0, 1, 2, ... by claiming a number where the effect lives, never by counting in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

# Statuses of instances, as AGS names them.

RESUMABLE = frozenset({"PAUSING", "PAUSED"})
"""A paused instance, or one that is being paused. Its timeout does not run."""

LIVE = frozenset({"STARTING", "RUNNING", "UNHEALTHY", "RESUMING"}) | RESUMABLE
"""Commands can run in it, now or after it was resumed."""

NEVER_RAN = frozenset({"FAILED", "STARTING_FAILED", "FORK_FAILED"})
"""The start failed, or the sandbox died. No other status follows."""

CHANGE_FAILED = frozenset({"PAUSE_FAILED", "RESUME_FAILED"})
STOP_FAILED = frozenset({"STOP_FAILED", "STOPPING_FAILED"})
STOPPING = frozenset({"STOPPING", "STOPPED"})
ENDED = STOPPING | NEVER_RAN
"""Nothing can run in it again."""

IN_USE = LIVE | {"STOPPING"}
"""It keeps its tool from being deleted."""

# Names of metadata on instances and of tags on tools and snapshots.

MANAGED_BY_KEY = "managed-by"
MANAGED_BY = "ags-flows"
"""Value of `managed-by` on everything that this package creates."""

FAMILY = "step-family"
HOLDER = "holder"
FLOW_RUN = "flow-run-id"
FLOW = "flow-id"
SUBFLOW_RUN = "subflow-run-id"
FLOW_RUN_NAME = "flow-run-name"
DEPLOYMENT = "deployment"
STEP_NAME = "step"
CREATED_AT = "created-at"
OWNER_HOST = "owner-host"
OWNER_PID = "owner-pid"
GENERATION = "generation"
LEASE = "lease"
"""Metadata: seconds of a lease that the owner renews while it lives."""

KEPT = "kept"
"""Metadata of a failed run's sandbox that is kept for inspection: `keep` or `pause`."""

GIVEN_UP = "given-up"
"""Metadata of a sandbox whose session ended after a failure: no retry takes it over."""

RESERVED = frozenset(
    {MANAGED_BY_KEY, FAMILY, HOLDER, FLOW_RUN, FLOW, SUBFLOW_RUN, FLOW_RUN_NAME, DEPLOYMENT, STEP_NAME, CREATED_AT}
    | {OWNER_HOST, OWNER_PID, GENERATION, KEPT, GIVEN_UP}
)
"""Names of metadata that callers must not give: this package sets them, and decides by them."""

SYNCED_TAG = "ags-flows-synced"
"""Tag of a tool that `sync_tools` keeps: its list decides about it, not its use."""

RENEW_AT = 0.25
"""Part of a lease's life after which it is renewed: whenever a process dies, three quarters or more are left."""

LONGEST_RENEWAL = 60.0
"""Seconds that a live process may be late with a renewal: for slow responses and repeated requests."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "ags-flows")


def fingerprint(value: Any) -> str:
    """Return a hash of a JSON-like value, 16 hexadecimal digits; the order of mappings does not matter."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def digest(*parts: str) -> str:
    """Return a hash of texts, 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


Kind = Literal["flow", "task", "item", "call"]
_LETTERS: dict[Kind, str] = {"flow": "f", "task": "t", "item": "i", "call": "c"}
_KINDS: dict[str, Kind] = {letter: kind for kind, letter in _LETTERS.items()}
_NAMES: dict[Kind, str] = {"flow": "flow run", "task": "task run", "item": "item", "call": "call"}


@dataclass(frozen=True)
class Frame:
    """One execution on the path to a call.

    Attributes:
        kind: A flow run, a task run of the user's, an item of a batch, or the call itself.
        id: Without spaces and colons. UUIDs are written without hyphens.
        attempt: Greater in every later execution of the same id. 1 in the first. A call has only attempt 1: a retry of
            this package's own task by Prefect is the same call.
    """

    kind: Kind
    id: str
    attempt: int = 1


@dataclass(frozen=True)
class Holder:
    """The path of executions from the outermost one down to a call, which is the last frame."""

    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        """Return the holder as metadata and the scripts in the sandbox carry it: `f:ID:ATTEMPT ... c:ID:1`."""
        return " ".join(f"{_LETTERS[frame.kind]}:{frame.id}:{frame.attempt}" for frame in self.frames)

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """Return the holder that a text stands for, None where the text is empty or damaged."""
        frames = []
        for word in text.split():
            letter, _, rest = word.partition(":")
            identifier, _, attempt = rest.rpartition(":")
            if letter not in _KINDS or not identifier or not attempt.isdecimal() or len(attempt) > 18:
                return None
            frames.append(Frame(_KINDS[letter], identifier, int(attempt)))
        return cls(tuple(frames)) if frames else None

    @property
    def enclosing(self) -> tuple[Frame, ...]:
        """The executions around the call."""
        return self.frames[:-1]

    @property
    def described(self) -> str:
        """The executions around the call as text, innermost first: `task run ID in flow run ID`."""
        around = [f"{_NAMES[one.kind]} {_hyphenated(one.id)}" for one in self.enclosing]
        return " in ".join(reversed(around)) or "another call"

    @property
    def call(self) -> str:
        """The id of the call."""
        return self.frames[-1].id

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt of an enclosing execution may have left something to take over."""
        return any(frame.attempt > 1 for frame in self.frames)

    @property
    def flow_runs(self) -> tuple[str, ...]:
        """Ids of the flow runs on the path, with hyphens, outermost first."""
        return tuple(_hyphenated(frame.id) for frame in self.frames if frame.kind == "flow")


def _hyphenated(identifier: str) -> str:
    """Return a UUID as Prefect and AGS show it; the key of an item stays as it is."""
    return str(uuid.UUID(identifier)) if re.fullmatch("[0-9a-f]{32}", identifier) else identifier


Relation = Literal["same", "superseded", "stale", "sibling", "stranger"]


def relation(mine: Holder, theirs: Holder) -> Relation:
    """Compare two holders at the first frame, from the outermost, where they differ.

    Returns:
        `same`: nothing differs; it is mine, and an earlier response was lost. `superseded`: theirs is an earlier
        attempt of an execution that encloses me; I take over. `stale`: theirs is a later attempt of an execution that
        encloses me; I let go. `sibling`: another execution, or another call of the same one; I leave it alone.
        `stranger`: another root; I never touch it.
    """
    for number, (own, other) in enumerate(zip(mine.frames, theirs.frames, strict=False)):
        if own == other:
            continue
        if (own.kind, own.id) != (other.kind, other.id):
            return "sibling" if number else "stranger"
        return "superseded" if own.attempt > other.attempt else "stale"
    return "same" if len(mine.frames) == len(theirs.frames) else "sibling"


@dataclass(frozen=True)
class Claim:
    """What a call gets when it asks for a place of a family.

    Attributes:
        number: Which place.
        outcome: `new`: it was free, the step has to be done. `same`: it is mine already, an earlier response was lost.
            `taken`: an earlier attempt held it, and what that began is mine now. `stale`: a later attempt holds it.
    """

    number: int
    outcome: Literal["new", "same", "taken", "stale"]


def claim(mine: Holder, held: Sequence[Holder], first: int = 0) -> Claim:
    """Return which of the places 0, 1, 2, ... of a family is mine: the rule that the scripts in the sandbox apply.

    Args:
        mine: Who asks.
        held: The holders of the places that are taken, by number.
        first: No place before this one can be mine. A caller may remember it as a hint for the next call of the same
            enclosing executions. A request that is repeated passes 0: its first one may have claimed a place that
            another call has passed since.
    """
    for number, theirs in enumerate(held[first:], start=first):
        found = relation(mine, theirs)
        if found == "same":
            return Claim(number, "same")
        if found == "superseded":
            return Claim(number, "taken")
        if found == "stale":
            return Claim(number, "stale")
    return Claim(max(first, len(held)), "new")


@dataclass(frozen=True)
class Place:
    """The path of what encloses a call, by what it does and not by ids, which differ in each attempt.

    Attributes:
        path: A digest of name and parameters for each user task, subflow and batch item, outermost first.
    """

    path: tuple[str, ...] = ()

    def within(self, name: str, parameters: str) -> Place:
        """Return the place inside of one more execution."""
        return Place((*self.path, digest(name, parameters)))


@dataclass(frozen=True)
class Step:
    """What a call does, where, and on whose behalf.

    Attributes:
        name: What kind of step it is, such as `exec_command`, with the caller's own name for it, if any.
        does: Fingerprint of what it does.
        root: Id of the outermost execution.
        place: What encloses the call.
        holder: Who makes the call.
    """

    name: str
    does: str
    root: str
    place: Place
    holder: Holder

    @property
    def what(self) -> str:
        """16 hexadecimal digits: the same wherever in the run the step is made."""
        return digest(self.root, self.name, self.does)

    @property
    def where(self) -> str:
        """16 hexadecimal digits: the same for all steps at the same place of a run."""
        return digest(*self.place.path)

    @property
    def family(self) -> str:
        """32 hexadecimal digits: the same in every attempt of the same place of the same run."""
        return self.what + self.where

    def client_token(self, generation: int = 0) -> str:
        """Return the ClientToken of a creation, at most 64 characters.

        Args:
            generation: How many resources that this call created are dead: AGS answers their tokens with them.
        """
        return str(uuid.uuid5(_NAMESPACE, f"{self.family}:{self.holder.call}:{generation}"))


def shared_step(name: str) -> Step:
    """Return a step that all callers share, such as the one server on a port of a sandbox."""
    return Step(name, "", "shared", Place(), Holder((Frame("call", digest(name)),)))


@dataclass(frozen=True)
class Owner:
    """The flow run, and the process, on whose behalf something is created.

    The id of the flow tells which Prefect server it was: a server that knows the flow, and not the run, has lost or
    deleted the run; one that knows neither is another server.
    """

    flow_run_id: str
    flow_run_name: str = ""
    flow_id: str = ""
    deployment: str = ""
    subflow_run_id: str = ""
    host: str = ""
    pid: int = 0


def label(
    step: Step, owner: Owner, created_at: datetime, lease: int | None = None, generation: int = 0
) -> dict[str, str]:
    """Return the metadata of an instance: step, holder and owner, without any secret. Empty values are left out.

    Args:
        step: The step that starts it.
        owner: The run and the process.
        created_at: The present. Aware.
        lease: Seconds, where the owner renews a lease.
        generation: How many instances that this call started are dead.
    """
    values = {
        MANAGED_BY_KEY: MANAGED_BY,
        FLOW_RUN: owner.flow_run_id,
        FLOW_RUN_NAME: owner.flow_run_name,
        FLOW: owner.flow_id,
        SUBFLOW_RUN: owner.subflow_run_id,
        DEPLOYMENT: owner.deployment,
        STEP_NAME: step.name,
        FAMILY: step.family,
        CREATED_AT: created_at.isoformat(timespec="seconds"),
        GENERATION: str(generation or ""),
        **held_by(step.holder, owner, lease),
    }
    return {name: value for name, value in values.items() if value}


def held_by(holder: Holder, owner: Owner, lease: int | None = None) -> dict[str, str]:
    """Return the metadata that changes when another attempt takes an instance over."""
    return {
        HOLDER: str(holder),
        LEASE: str(lease or ""),
        OWNER_HOST: owner.host,
        OWNER_PID: str(owner.pid or ""),
    }


def belonging_to(owner: Owner) -> dict[str, str]:
    """Return the tags of a tool that its flow run deletes at its end: when the run cannot any more, the reaper may."""
    values = {FLOW_RUN: owner.flow_run_id, FLOW: owner.flow_id}
    return {name: value for name, value in values.items() if value}


def holder_of(metadata: Mapping[str, str]) -> Holder | None:
    """Return the holder that an instance's metadata names, None where there is none."""
    return Holder.parse(metadata.get(HOLDER, ""))


def flow_runs_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of all flow runs that an instance or a tool belongs to, outermost first."""
    holder = holder_of(metadata)
    named = (metadata.get(FLOW_RUN, ""), *(holder.flow_runs if holder else ()), metadata.get(SUBFLOW_RUN, ""))
    return tuple(dict.fromkeys(one for one in named if one))


def may_take_over(mine: Holder, status: str, metadata: Mapping[str, str]) -> bool:
    """Whether an instance of my step's family was left by an earlier attempt, for me to take over.

    One that is mine already counts too: the response to a request of the take-over was lost, and the call is repeated.
    """
    theirs = holder_of(metadata)
    if status not in LIVE or theirs is None or metadata.get(KEPT) or metadata.get(GIVEN_UP):
        return False
    return relation(mine, theirs) in ("same", "superseded")


def take_over_order(holder: Holder) -> tuple[int, ...]:
    """Return a key that sorts instances that may be taken over: those of the latest attempt come first.

    Equal keys are sorted by the time of creation, the oldest first. Age alone is not enough: an attempt that starts an
    instance late leaves one that is older, and has done less, than the one in which its successor worked.
    """
    return tuple(-frame.attempt for frame in holder.enclosing)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether this package created it, for a flow run that can be looked up."""
    return metadata.get(MANAGED_BY_KEY) == MANAGED_BY and bool(metadata.get(FLOW_RUN))


def lease_is_kept(metadata: Mapping[str, str], expires_at: datetime | None, now: datetime) -> bool:
    """Whether an instance's lease was renewed so recently that the process that holds it must have been alive.

    A process renews after a quarter of the lease. Less than three quarters left, minus the time that a renewal may
    take, means that it is gone.
    """
    text = metadata.get(LEASE, "")
    if not text.isdecimal() or expires_at is None:
        return False
    return (expires_at - now).total_seconds() > max(0.0, int(text) * (1 - RENEW_AT) - LONGEST_RENEWAL)


def run_tool_name(name: str, root: str) -> str:
    """Return the name of a tool that is made for one run, at most 50 characters: no other run has the same.

    The last digits of the run's id are used: the first ones of a UUID of version 7 are the time. A name that has to be
    shortened ends with a digest of the whole one.
    """
    short = name if len(name) <= 41 else f"{name[:34]}-{digest(name)[:6]}"
    return f"{short}-{root.replace('-', '')[-8:]}"


RunState = Literal["active", "terminal", "unknown", "foreign"]
"""What a Prefect server knows of a flow run: that it is not over; that it is over; that it knows the run's flow and
not the run (deleted, or lost with a database that was set back); that it knows neither, so that the run may belong to
another server."""


def is_orphan(
    metadata: Mapping[str, str],
    run_state: RunState,
    ended_at: datetime | None,
    now: datetime,
    grace: timedelta = timedelta(minutes=10),
) -> bool:
    """Whether an instance is provably ours and provably without an owner.

    Args:
        metadata: What the instance carries.
        run_state: What the Prefect server knows of its flow run, read just before acting; never a guess for a server
            that did not respond.
        ended_at: When the run ended; for an unknown run, when the instance was created. Aware.
        now: The present. Aware.
        grace: How long a sandbox without an owner is left alone, for a retry to take over.
    """
    if not is_ours(metadata) or run_state in ("active", "foreign") or ended_at is None:
        return False
    return now - ended_at >= grace
