"""Ownership of sandboxes, commands and cells: holders, claims, steps, and the metadata that stores them.

This module has only values and pure functions. A **holder** is the path of executions from the outermost one down to
a call. `relation` compares two holders and so decides what a caller may do with a resource of another holder. A
**step** is what a call does and where it does it; its family is the same in every attempt and in every process. Steps
of one family are numbered 0, 1, 2, ... by claiming a number in the sandbox or at AGS. Only equal starts of sandboxes in
one execution are counted in memory, see `ags_flows.run.holder`: their order there is a part of what they do.
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
"""The instance is paused or is being paused. Its timeout does not run."""

LIVE = frozenset({"STARTING", "RUNNING", "UNHEALTHY", "RESUMING"}) | RESUMABLE
"""Commands can run in the instance, now or after a resume."""

NEVER_RAN = frozenset({"FAILED", "STARTING_FAILED", "FORK_FAILED"})
"""The start failed, or the sandbox failed. The status is final."""

CHANGE_FAILED = frozenset({"PAUSE_FAILED", "RESUME_FAILED"})
STOP_FAILED = frozenset({"STOP_FAILED", "STOPPING_FAILED"})
STOPPING = frozenset({"STOPPING", "STOPPED"})
ENDED = STOPPING | NEVER_RAN
"""Nothing can run in the instance again."""

IN_USE = LIVE | {"STOPPING"}
"""The instance prevents the deletion of its tool."""

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

RESERVED = frozenset(
    {MANAGED_BY_KEY, FAMILY, HOLDER, FLOW_RUN, FLOW, SUBFLOW_RUN, FLOW_RUN_NAME, DEPLOYMENT, STEP_NAME, CREATED_AT}
    | {OWNER_HOST, OWNER_PID, GENERATION, KEPT}
)
"""Names of metadata that callers must not give: this package sets them, and decides by them."""

SYNCED_TAG = "ags-flows-synced"
"""Tag of a tool that `sync_tools` manages. Its list decides when it is deleted, not the time of its last use."""

RENEW_AT = 0.25
"""Fraction of a lease after which it is renewed. When a process dies, at least three quarters of the lease remain."""

LONGEST_RENEWAL = 60.0
"""Seconds by which a renewal of a live process may be late, because of slow responses and repeated requests."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "ags-flows")


def fingerprint(value: Any) -> str:
    """Return a hash of a JSON-like value: 16 hexadecimal digits, independent of the order of mappings."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def digest(*parts: str) -> str:
    """Return a hash of strings: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


Kind = Literal["flow", "task", "item", "call"]
_LETTERS: dict[Kind, str] = {"flow": "f", "task": "t", "item": "i", "call": "c"}
_KINDS: dict[str, Kind] = {letter: kind for kind, letter in _LETTERS.items()}
_NAMES: dict[Kind, str] = {"flow": "flow run", "task": "task run", "item": "item", "call": "call"}

LONGEST_RUN = 10**13
"""The attempt of a flow run is its count times this, plus the microseconds that it was executed before. Some hundred
days: with it, bash can compare the attempts of 900,000 retries."""


@dataclass(frozen=True)
class Frame:
    """One execution on the path to a call.

    Attributes:
        kind: A flow run, a task run of the user's, an item of a batch, or the call itself.
        id: Without spaces and colons. UUIDs have no hyphens.
        attempt: 1 for the first execution of an id, greater for each later one. A call always has attempt 1: when
            Prefect retries a task of this package, that is the same call.
    """

    kind: Kind
    id: str
    attempt: int = 1

    @property
    def described(self) -> str:
        """The execution as text, such as `attempt 2 of flow run ID`."""
        identifier = f"{_NAMES[self.kind]} {_hyphenated(self.id)}"
        count = 1 + (self.attempt - 1) // LONGEST_RUN if self.kind == "flow" else self.attempt
        return identifier if count == 1 else f"attempt {count} of {identifier}"


@dataclass(frozen=True)
class Holder:
    """The path of executions from the outermost one down to a call, which is the last frame."""

    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        """Return the form that metadata and the scripts in the sandbox use: `f:ID:ATTEMPT ... c:ID:1`."""
        return " ".join(f"{_LETTERS[frame.kind]}:{frame.id}:{frame.attempt}" for frame in self.frames)

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """Parse the result of `str(holder)`. Return None if the text is empty or damaged."""
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
        """The executions around the call as text, innermost first: `task run ID in attempt 2 of flow run ID`."""
        return " in ".join(one.described for one in reversed(self.enclosing)) or "another call"

    @property
    def call(self) -> str:
        """The id of the call."""
        return self.frames[-1].id

    @property
    def is_retry(self) -> bool:
        """Whether an enclosing execution is a retry, so that an earlier attempt may have left resources."""
        return any(frame.attempt > 1 for frame in self.frames)

    @property
    def flow_runs(self) -> tuple[str, ...]:
        """Ids of the flow runs on the path, with hyphens, outermost first."""
        return tuple(_hyphenated(frame.id) for frame in self.frames if frame.kind == "flow")


def _hyphenated(identifier: str) -> str:
    """Return a UUID with hyphens, as Prefect and AGS show it. Return other ids unchanged."""
    return str(uuid.UUID(identifier)) if re.fullmatch("[0-9a-f]{32}", identifier) else identifier


Relation = Literal["same", "superseded", "stale", "sibling", "stranger"]


def relation(mine: Holder, theirs: Holder) -> Relation:
    """Compare two holders at the outermost frame where they differ.

    Args:
        mine: The holder of the caller.
        theirs: The holder of a resource.

    Returns:
        `same`: the holders are equal; the caller owns the resource, and an earlier response was lost. `superseded`:
        the resource belongs to an earlier attempt of an execution that encloses the caller; the caller may take it
        over. `stale`: it belongs to a later attempt of such an execution; the caller must stop using it. `sibling`:
        it belongs to another execution or to another call of the same run; the caller must not use it. `stranger`:
        it belongs to another run; the caller must not use it.
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
    """The result of a call's claim of a place of a family.

    Attributes:
        number: The number of the place.
        outcome: `new`: the place was free; the step has to be executed. `same`: the caller has claimed it before, and
            that response was lost. `taken`: the caller has taken it over from an earlier attempt, with everything
            that attempt started. `stale`: a later attempt holds it.
    """

    number: int
    outcome: Literal["new", "same", "taken", "stale"]


def claim(mine: Holder, held: Sequence[Holder], first: int = 0) -> Claim:
    """Return which of the places 0, 1, 2, ... of a family the caller gets.

    The scripts in the sandbox apply the same rule.

    Args:
        mine: The holder of the caller.
        held: The holders of the claimed places, by number.
        first: The first place to consider. Callers may remember it as a hint for the next call of the same enclosing
            executions. A repeated request passes 0, because its first request may have claimed an earlier place.
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
    """The path of executions that enclose a call, described without ids, which differ in each attempt.

    Attributes:
        path: A digest of name and parameters of each user task, subflow and batch item, outermost first.
    """

    path: tuple[str, ...] = ()

    def within(self, name: str, parameters: str) -> Place:
        """Return the place inside one more execution."""
        return Place((*self.path, digest(name, parameters)))


@dataclass(frozen=True)
class Step:
    """What a call does, where it does it, and for which holder.

    Attributes:
        name: The kind of step, such as `exec_command`, with the caller's own name for it, if any.
        does: Fingerprint of what it does.
        root: Id of the outermost execution.
        place: The executions that enclose the call.
        holder: The holder that makes the call.
    """

    name: str
    does: str
    root: str
    place: Place
    holder: Holder

    @property
    def what(self) -> str:
        """16 hexadecimal digits, the same at every place of the run."""
        return digest(self.root, self.name, self.does)

    @property
    def where(self) -> str:
        """16 hexadecimal digits, the same for all steps at one place of a run."""
        return digest(*self.place.path)

    @property
    def family(self) -> str:
        """32 hexadecimal digits, the same in every attempt of the step at one place of a run."""
        return self.what + self.where

    def client_token(self, generation: int = 0) -> str:
        """Return the ClientToken of a creation, at most 64 characters.

        Args:
            generation: How many resources that this call created are dead. AGS responds to their tokens with the
                dead resources, so that a new token is needed.
        """
        return str(uuid.uuid5(_NAMESPACE, f"{self.family}:{self.holder.call}:{generation}"))


def shared_step(name: str) -> Step:
    """Return a step that all callers share, such as starting the only server on a port of a sandbox."""
    return Step(name, "", "shared", Place(), Holder((Frame("call", digest(name)),)))


@dataclass(frozen=True)
class Owner:
    """The flow run and the process for which a resource is created.

    The flow id identifies the Prefect server: a server that knows the flow but not the run has lost or deleted the
    run; a server that knows neither is another server.
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
    """Return the metadata of an instance: step, holder and owner, without secrets and without empty values.

    Args:
        step: The step that starts the instance.
        owner: The flow run and the process.
        created_at: The current time, timezone-aware.
        lease: Length of the lease in seconds; None without a lease.
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
    """Return the metadata that changes when another attempt takes over an instance."""
    return {
        HOLDER: str(holder),
        LEASE: str(lease or ""),
        OWNER_HOST: owner.host,
        OWNER_PID: str(owner.pid or ""),
    }


def belonging_to(owner: Owner) -> dict[str, str]:
    """Return the tags of a tool that its flow run deletes when it ends. If the run cannot, the reaper deletes it."""
    values = {FLOW_RUN: owner.flow_run_id, FLOW: owner.flow_id}
    return {name: value for name, value in values.items() if value}


def holder_of(metadata: Mapping[str, str]) -> Holder | None:
    """Return the holder in an instance's metadata, or None if there is none."""
    return Holder.parse(metadata.get(HOLDER, ""))


def flow_runs_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of all flow runs that an instance or a tool belongs to, outermost first."""
    holder = holder_of(metadata)
    named = (metadata.get(FLOW_RUN, ""), *(holder.flow_runs if holder else ()), metadata.get(SUBFLOW_RUN, ""))
    return tuple(dict.fromkeys(one for one in named if one))


def may_take_over(mine: Holder, status: str, metadata: Mapping[str, str]) -> bool:
    """Return True if the caller may take over an instance of its step's family from an earlier attempt.

    True also for an instance that the caller already holds: the response to an earlier take-over request was lost.

    Args:
        mine: The caller.
        status: Status of the instance.
        metadata: Metadata of the instance.
    """
    theirs = holder_of(metadata)
    if status not in LIVE or theirs is None or metadata.get(KEPT):
        return False
    return relation(mine, theirs) in ("same", "superseded")


def take_over_order(holder: Holder) -> tuple[int, ...]:
    """Return a sort key for instances that may be taken over: those of the latest attempt come first.

    Callers sort equal keys by creation time, oldest first. Sorting by age alone would prefer an instance that an
    early attempt left unused over the instance in which a later attempt has done work.
    """
    return tuple(-frame.attempt for frame in holder.enclosing)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Return True if this package created the resource for a flow run that can be looked up."""
    return metadata.get(MANAGED_BY_KEY) == MANAGED_BY and bool(metadata.get(FLOW_RUN))


def lease_is_kept(metadata: Mapping[str, str], expires_at: datetime | None, now: datetime) -> bool:
    """Return True if an instance's lease was renewed so recently that its process must still be alive.

    A live process renews its lease after a quarter. If less than three quarters remain, minus the time that a renewal
    may take, the process has ended.
    """
    text = metadata.get(LEASE, "")
    if not text.isdecimal() or expires_at is None:
        return False
    return (expires_at - now).total_seconds() > max(0.0, int(text) * (1 - RENEW_AT) - LONGEST_RENEWAL)


def run_tool_name(name: str, spec: str, root: str) -> str:
    """Return the name of a tool that is created for one run: at most 50 characters, different for each run and spec.

    Args:
        name: The name in the spec. One that has to be shortened ends with a digest of the whole one.
        spec: Fingerprint of the spec. The name has four digits of it.
        root: Id of the run. The name has the last eight digits: the first ones of a UUID of version 7 are the time.
    """
    short = name if len(name) <= 36 else f"{name[:29]}-{digest(name)[:6]}"
    return f"{short}-{spec[:4]}-{root.replace('-', '')[-8:]}"


RunState = Literal["active", "terminal", "unknown", "foreign"]
"""What a Prefect server knows of a flow run.

`active`: the run has not ended. `terminal`: it has ended. `unknown`: the server knows the run's flow but not the run,
which was deleted, or lost when the database was restored from a backup. `foreign`: the server knows neither, so that
the run may belong to another server.
"""


def is_orphan(
    metadata: Mapping[str, str],
    run_state: RunState,
    ended_at: datetime | None,
    now: datetime,
    grace: timedelta = timedelta(minutes=10),
) -> bool:
    """Return True if this package created an instance and its flow run has provably ended.

    Args:
        metadata: The metadata of the instance.
        run_state: What the Prefect server knows of its flow run, read just before acting. If the server did not
            respond, do not call this function.
        ended_at: When the run ended; for an unknown run, when the instance was created. Timezone-aware.
        now: The current time, timezone-aware.
        grace: Time after the end of the run during which a retry may still take over the sandbox.
    """
    if not is_ours(metadata) or run_state in ("active", "foreign") or ended_at is None:
        return False
    return now - ended_at >= grace
