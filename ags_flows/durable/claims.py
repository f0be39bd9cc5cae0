"""Claims in a sandbox: determine atomically which place of a family a call gets, and whether its step is done.

A claimed place is a directory `<root>/<kind>/<family>.<number>`; the root is `~/.ags_flows/<id of the sandbox>`. It is
created under a temporary name, with the holder's text in the file `holder`, and then renamed: it exists completely or
not at all, and a second rename fails. A later attempt that takes over adds `holder.1/text`, `holder.2/text`, ..., in
the same way, so that exactly one of several claimants succeeds. The last one is the current holder.

The scripts apply the rule of `ags_flows.ownership.claim`. One round trip is enough for any number of places.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.forks import ModuleLock
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.durable.claim_scripts import (
    ABANDON,
    CLAIM,
    HOLDER_FUNCTIONS,
    INSTANCE_FAMILY,
    INSTANCE_KIND,
    RECORD,
    RELEASE,
    REPORT,
    ROOT,
)
from ags_flows.errors import SupersededError, UnsupportedError
from ags_flows.ownership import Frame, Holder, Step

CALL_TIMEOUT = 30.0
CLAIM_BACKOFF = Backoff(attempts=3, first_pause=0.5)
RELEASE_TIMEOUT = 5.0
INSTANCE_BACKOFF = Backoff(attempts=None, patience=60.0, first_pause=0.5, longest_pause=5.0)
"""If a sandbox does not respond for this long, it is not taken over and stops when its lease expires."""

MARK = "@ags-claim"
NEEDS = "Commands, cells and take-overs need bash, coreutils, and a writable home directory or /tmp."

_REMEMBERED = 1_000


@dataclass
class _Hint:
    """What this process knows about the places of one family, for the calls of one execution.

    Attributes:
        free: The first place that may be free.
        asked: Ids of the calls that have sent a request.
        claimed: Id of a call to the number of its place.
    """

    free: int = 0
    asked: set[str] = field(default_factory=set)
    claimed: dict[str, int] = field(default_factory=dict)


_hints: WeakKeyDictionary[DataPlane, LRUCache[tuple[str, str, tuple[Frame, ...]], _Hint]] = WeakKeyDictionary()
_hints_lock = ModuleLock()

Outcome = Literal["new", "same", "taken", "sibling"]
Ownership = Literal["owned", "sibling", "released"]
"""Whether the caller owns a sandbox, another call of this attempt does, or its holder is about to stop it."""
ENDED = "ended"


@dataclass(frozen=True)
class Request:
    """A request for a claim in a sandbox.

    Attributes:
        kind: Name of the directory of such places: letters.
        family: 32 hexadecimal digits, or another name.
        holder: The holder that claims.
        first: The first place to consider. This hint saves time; earlier places cannot be the caller's.
        seed: The holder of a place that was not claimed yet, as an instance's metadata has it.
        single: Whether the family has only one place.
    """

    kind: str
    family: str
    holder: Holder
    first: int = 0
    seed: Holder | None = None
    single: bool = False


@dataclass(frozen=True)
class Claimed:
    """The result of a claim.

    Attributes:
        outcome: See `ags_flows.ownership.Claim`; or `sibling` if the only place belongs to another call.
        number: Number of the place.
        has_result: Whether the place has a file `result`.
        directory: Absolute path of the place in the sandbox.
        holder: Text of the holder that had the place before; empty for a new one.
    """

    outcome: Outcome
    number: int
    has_result: bool
    directory: str
    holder: str = ""


def claim_instance(plane: DataPlane, holder: Holder, predecessor: Holder) -> Ownership:
    """Claim a whole sandbox of an earlier attempt, and return whose it is now.

    Args:
        plane: The sandbox.
        holder: The holder that takes over.
        predecessor: The holder in the metadata of the sandbox.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    request = Request(INSTANCE_KIND, INSTANCE_FAMILY, holder, seed=predecessor, single=True)
    claimed = claim(plane, request, INSTANCE_BACKOFF)
    if claimed.outcome in ("same", "taken"):
        return "owned"
    return "released" if claimed.holder == ENDED else "sibling"


def release_instance(plane: DataPlane, holder: Holder) -> None:
    """Record in a sandbox that its holder stops it. After that, no later attempt takes it over.

    Raises:
        SupersededError: A later attempt of the same run has the sandbox.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    request = Request(INSTANCE_KIND, INSTANCE_FAMILY, holder, seed=holder, single=True)
    _ask(plane, claim_functions(request) + RELEASE, Backoff(attempts=1), RELEASE_TIMEOUT)


def request_for(plane: DataPlane, kind: str, step: Step) -> Request:
    """Return the claim request of a step in a sandbox, with the first place that can be the caller's.

    A repeated call considers all places: it may have a place already whose response was lost.
    """
    hint = _hint(plane, kind, step)
    call = step.holder.call
    first = hint.claimed.get(call, 0 if call in hint.asked else hint.free)
    hint.asked.add(call)
    return Request(kind, step.family, step.holder, first)


def remember(plane: DataPlane, kind: str, step: Step, name: str) -> None:
    """Remember a claim for repeated calls, and as a hint for other calls of the same executions.

    Args:
        plane: The sandbox.
        kind: Name of the directory of the place.
        step: The step that claimed the place.
        name: Name of the place: `<family>.<number>`.
    """
    family, _, number = name.rpartition(".")
    if family == step.family:
        hint = _hint(plane, kind, step)
        hint.claimed[step.holder.call] = int(number)
        hint.free = max(hint.free, int(number) + 1)


def _hint(plane: DataPlane, kind: str, step: Step) -> _Hint:
    with _hints_lock:
        hints = _hints.setdefault(plane, LRUCache(_REMEMBERED))
        return hints.setdefault((kind, step.family, step.holder.enclosing), _Hint())


def claim(plane: DataPlane, request: Request, backoff: Backoff = CLAIM_BACKOFF) -> Claimed:
    """Claim a place in a sandbox, in one round trip.

    If the response is lost, the request is repeated. The outcome is then `same`.

    Raises:
        SupersededError: A later attempt of the same run has the place.
        UnsupportedError: The sandbox does not support claims.
        UnreachableError: The sandbox did not respond.
    """
    return _ask(plane, claim_functions(request) + REPORT, backoff, CALL_TIMEOUT)


def record(plane: DataPlane, request: Request, result: str) -> Claimed:
    """Claim a place, and store the result of a finished step there for a retry, in one round trip.

    Raises:
        SupersededError: A later attempt of the same run has the place, or the sandbox.
        UnsupportedError: The sandbox cannot hold claims.
        UnreachableError: The sandbox did not respond.
    """
    script = "\n".join([assignments({"ags_result": result}), claim_functions(request), RECORD])
    return _ask(plane, script, Backoff(), CALL_TIMEOUT)


def abandon(plane: DataPlane, claimed: Claimed, holder: Holder) -> None:
    """End a claim whose step was not executed, unless another holder has taken it over. A repetition gets another one.

    Raises:
        UnreachableError: The sandbox did not respond.
    """
    known = assignments({"ags_directory": claimed.directory, "ags_holder": str(holder)})
    script = "\n".join([known, HOLDER_FUNCTIONS, ABANDON])
    persistently(lambda: plane.script(script, timeout=CALL_TIMEOUT))


def _ask(plane: DataPlane, script: str, backoff: Backoff, timeout: float) -> Claimed:
    script = script.replace("MARKER", MARK)
    response = persistently(lambda: plane.script(script, timeout=timeout), backoff)
    lines = [line for line in response.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise UnsupportedError(
            f"The sandbox {plane.instance_id} does not support claims (exit code {response.exit_code}): "
            f"{(response.stderr or response.stdout).strip()[-300:]}",
            hint=NEEDS,
        )
    _, outcome, number, full, directory = lines[0].split(" ", 4)
    holder = lines[1].partition(" ")[2]
    if outcome == "stale":
        raise superseded(plane.instance_id, holder)
    return Claimed(outcome, int(number), full == "result", directory, holder)  # type: ignore[arg-type]


def superseded(instance_id: str, successor: str, process: str = "") -> SupersededError:
    """Return the error of an attempt whose sandbox or step a later attempt holds.

    Args:
        instance_id: The sandbox.
        successor: The text of the later attempt's holder.
        process: Process and host of the later attempt, empty if not known.
    """
    holder = Holder.parse(successor)
    where = "; ".join(part for part in (holder.described if holder else "", process) if part)
    error = SupersededError(
        f"A later attempt{where and f' ({where})'} has taken over the work of this one in sandbox {instance_id}.",
        hint="This attempt ends here, and leaves everything to its successor.",
    )
    error.instance_id = instance_id
    return error


def claim_functions(request: Request) -> str:
    """Return the part of a script that defines `ags_claim`."""
    values = {
        "ags_kind": request.kind,
        "ags_family": request.family,
        "ags_holder": str(request.holder),
        "ags_first": str(request.first),
        "ags_seed": str(request.seed or ""),
        "ags_single": "1" if request.single else "",
    }
    return "\n".join([assignments(values), ROOT, HOLDER_FUNCTIONS, CLAIM])


def assignments(values: Mapping[str, str]) -> str:
    """Return the lines that set variables of a script."""
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
