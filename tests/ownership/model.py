"""A model of the cloud, of sandboxes and of executions, to check the rules of ownership on many interleavings.

`World` holds the cloud and the executions. Executions are fibers: generators that yield one atomic request at a time.
The caller picks the fiber that goes on, and what happens to its request: it succeeds, its response is lost, the request
is lost, or it is carried out later. Flow runs are killed, retried, retried while the earlier attempt still runs, frozen
and suspended. Tasks fail, and are retried while the earlier attempt still runs. After each request the world compares
what an execution believes with what is true, which no execution can see. It raises `BrokenRuleError` if they differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ags_flows.ownership import (
    GIVEN_UP,
    KEPT,
    LIVE,
    Claim,
    Frame,
    Holder,
    Owner,
    Place,
    Step,
    claim,
    digest,
    flow_runs_of,
    held_by,
    holder_of,
    label,
    may_take_over,
    relation,
    run_tool_name,
    take_over_order,
)

LEASE = 900
EPOCH = datetime(2026, 11, 23, tzinfo=timezone.utc)


class BrokenRuleError(AssertionError):
    """An invariant is violated."""


@dataclass(frozen=True)
class Rules:
    """The rules that executions follow. The defaults are sound; each other value is a fault that the model finds."""

    relation: Callable[[Holder, Holder], str] = relation
    claim: Callable[[Holder, Sequence[Holder], int], Claim] = claim
    may_take_over: Callable[[Holder, str, dict[str, str]], bool] = may_take_over
    token: Callable[[Step, int], str] = Step.client_token
    compare_and_set: bool = True
    """An instance is claimed in one atomic step, not with a look and a write."""
    release: bool = True
    """An end is first recorded in the sandbox, where the claim is: only one of claim and end can win."""
    look: bool = True
    """A renewal and an end look at the holder in the metadata first."""
    latest_first: bool = True
    """Candidates of the latest attempt come first, then the oldest; otherwise simply the oldest."""
    ordinal: bool = True
    """The family of a start contains how many equal starts the same execution has made before."""
    repeat_from_zero: bool = True
    """A request that is repeated does not use the hint about the first free place."""
    renew_first: bool = True
    """The lease is renewed when an instance is taken over."""
    generations: bool = True
    """If the response to a token has a dead instance, the token of the next generation is used."""
    unique_items: bool = True
    """The frame of a batch item differs in each batch and attempt; otherwise it is the item's key and attempt."""
    adopt: bool = True
    """A retry looks for an instance of an earlier attempt."""


# Programs.


@dataclass(frozen=True)
class Run:
    """Run a command in the surrounding session."""

    command: str


@dataclass(frozen=True)
class Session:
    """Start or take over a sandbox for a body, and stop it at the end."""

    body: tuple[Any, ...]
    tool: str = "base"
    spec: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Scope:
    """A user's task, an in-process subflow or an item of a batch."""

    kind: str
    name: str
    body: tuple[Any, ...]
    retries: int = 1


@dataclass(frozen=True)
class Parallel:
    """Execute several parts at the same time."""

    parts: tuple[Any, ...]


# What executions see.


class LostError(Exception):
    """There is no response: the request was carried out, or not, or will be."""


class GoneError(Exception):
    """The instance has ended."""


class PausedError(Exception):
    """The instance is paused."""


class SupersededError(Exception):
    """A later attempt of this execution has begun."""


class NoToolError(Exception):
    """The tool does not exist, or is being deleted."""


class FailedError(Exception):
    """The user's code failed."""


class SuspendedError(Exception):
    """The flow run is being suspended."""


ENDS = (LostError, GoneError, PausedError, SupersededError, NoToolError, FailedError, SuspendedError)


# The cloud.


@dataclass
class Journal:
    chain: list[Holder]
    executions: int = 1


@dataclass
class Instance:
    id: int
    metadata: dict[str, str]
    expires: int
    status: str = "RUNNING"
    chain: list[Holder] = field(default_factory=list)
    released: str = ""
    broken: bool = False
    journals: dict[str, list[Journal]] = field(default_factory=dict)
    # What really is: sessions that work in it, and the last time that a living process held it.
    sessions: list[Open] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def executions(self) -> int:
        return sum(journal.executions for found in self.journals.values() for journal in found)


@dataclass(frozen=True)
class Seen:
    """An instance in a response."""

    id: int
    status: str
    metadata: dict[str, str]
    progress: int


@dataclass(eq=False)
class Open:
    """A session that has its instance."""

    fiber: Fiber
    node: Session
    step: Step
    instance: int
    ended: bool = False
    lost: bool = False
    renew_at: int = 0
    adopted: bool = False
    better: tuple[int, ...] = ()


@dataclass
class Request:
    commit: Callable[[], Any]
    may_be_late: bool = True


Steps = Generator[Any, Any, Any]


@dataclass(eq=False)
class Fiber:
    """One thread of execution: a scope, a part of a parallel block, or the renewals of a session."""

    run: FlowRun
    frames: tuple[Frame, ...]
    place: Place
    parent: Fiber | None
    scope: Scope | None = None
    steps: Steps = None  # type: ignore[assignment]
    asked: Any = None
    waiting: list[Fiber] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False
    dead: bool = False
    opening: bool = False
    renewer: Open | None = None
    subflows: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        return not self.done and not self.dead


@dataclass(eq=False)
class FlowRun:
    """A flow run that is its own root."""

    id: str
    body: tuple[Any, ...]
    attempt: int = 0
    state: str = "scheduled"
    main: Fiber | None = None
    suspending: bool = False


class World:
    """The cloud and all executions."""

    def __init__(self, programs: Sequence[tuple[Any, ...]], rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.now = 0
        self.broken = False
        self.instances: dict[int, Instance] = {}
        self.tools: dict[str, str] = {}
        self.tokens: dict[str, int] = {}
        self.late: list[Callable[[], Any]] = []
        self.latest: dict[tuple[str, str], int] = {}
        self.fibers: list[Fiber] = []
        self.frozen: set[tuple[str, int]] = set()
        self.attached: dict[tuple[int, str, int], list[Holder]] = {}
        self.hints: dict[Any, int] = {}
        self.opened: dict[Any, int] = {}
        self.numbers = itertools.count(len(programs) + 1)
        self.runs = [FlowRun(f"{number:032x}", body) for number, body in enumerate(programs, start=1)]
        for run in self.runs:
            self.begin(run)

    # What really is.

    def is_current(self, frames: tuple[Frame, ...]) -> bool:
        """Whether no later attempt of anything on a path has begun."""
        return all(self.latest.get((frame.kind, frame.id), frame.attempt) == frame.attempt for frame in frames)

    def at_work(self, instance: Instance) -> list[Open]:
        """Sessions of current, living executions that work in an instance."""
        return [
            one
            for one in instance.sessions
            if not one.ended and not one.lost and one.fiber.alive and self.is_current(one.fiber.frames)
        ]

    def is_left(self, instance: Instance, mine: Holder) -> bool:
        """Whether an earlier attempt left an instance for a holder to take over."""
        held = instance.chain[-1] if instance.chain else holder_of(instance.metadata)
        usable = not instance.released and may_take_over(mine, instance.status, instance.metadata)
        return usable and held is not None and relation(mine, held) == "superseded"

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken = True
            raise BrokenRuleError(what)

    def works(self, fiber: Fiber, session: Open) -> None:
        """Record that an execution believes that it has an instance for itself."""
        instance = self.instances[session.instance]
        instance.sessions.append(session)
        if not self.is_current(fiber.frames):
            return
        for other in instance.sessions:
            if (
                other is not session
                and self.is_current(other.fiber.frames)
                and other.step.holder != session.step.holder
            ):
                self.check(False, "two current places have one instance")
        self.check(not instance.metadata.get(KEPT), "a kept instance was taken over")
        self.check(not instance.metadata.get(GIVEN_UP), "an instance that was given up was taken over")

    def believes(self, mine: Holder, instance: int, family: str, number: int) -> None:
        """Record that a call believes that a place is its own."""
        beliefs = self.attached.setdefault((instance, family, number), [])
        if mine in beliefs:
            return
        beliefs.append(mine)
        if not self.is_current(mine.frames):
            return
        for other in beliefs:
            self.check(other == mine or not self.is_current(other.frames), "two current calls have one place")

    # The cloud, one atomic request each.

    def seen(self, instance: Instance) -> Seen:
        return Seen(instance.id, instance.status, dict(instance.metadata), instance.executions)

    def _get(self, number: int, running: bool = False) -> Instance:
        instance = self.instances[number]
        if not instance.live:
            raise GoneError(number)
        if running and instance.status != "RUNNING":
            raise PausedError
        return instance

    def start(self, fiber: Fiber, step: Step, generation: int, tool: str, existing: frozenset[int]) -> Seen:
        token = self.rules.token(step, generation)
        if token in self.tokens:
            return self.seen(self.instances[self.tokens[token]])
        if tool and self.tools.get(tool) != "ACTIVE":
            raise NoToolError
        if fiber.alive and self.is_current(fiber.frames):
            for other in self.instances.values():
                missed = other.id in existing and other.metadata.get("step-family") == step.family
                if missed and self.is_left(other, step.holder):
                    self.check(False, "a fresh instance although an earlier attempt's is alive")
        owner = Owner(fiber.run.id, subflow_run_id=fiber.subflows[-1] if fiber.subflows else "", pid=1)
        created = EPOCH + timedelta(seconds=self.now)
        instance = Instance(next(self.numbers), label(step, owner, created, LEASE), self.now + LEASE)
        instance.metadata["tool"] = tool
        self.instances[instance.id] = instance
        self.tokens[token] = instance.id
        return self.seen(instance)

    def find(self, family: str) -> list[Seen]:
        found = (one for one in self.instances.values() if one.metadata.get("step-family") == family)
        return [self.seen(one) for one in found]

    def get(self, number: int) -> Seen:
        return self.seen(self.instances[number])

    def update(self, number: int, timeout: int = 0, **metadata: str) -> None:
        instance = self._get(number)
        if timeout:
            instance.expires = self.now + timeout
        instance.metadata.update(metadata)

    def resume(self, number: int) -> None:
        instance = self._get(number)
        if instance.status == "PAUSED":
            instance.status = "RUNNING"
            instance.expires = self.now + LEASE

    def claim_instance(self, number: int, mine: Holder) -> str:
        instance = self._get(number, running=True)
        if instance.released:
            return "ended"
        found = self.rules.relation(mine, instance.chain[-1]) if instance.chain else "superseded"
        if found == "superseded":
            instance.chain.append(mine)
        return found

    def read_claim(self, number: int) -> tuple[list[Holder], str]:
        instance = self._get(number, running=True)
        return list(instance.chain), instance.released

    def write_claim(self, number: int, mine: Holder) -> None:
        self._get(number, running=True).chain.append(mine)

    def release(self, number: int, mine: Holder, why: str) -> str:
        """Record in the sandbox that its holder ends it. A later claim finds the record."""
        instance = self._get(number, running=True)
        found = self.rules.relation(mine, instance.chain[-1]) if instance.chain else "same"
        if found == "same":
            instance.released = why
        return found

    def execute(self, number: int, family: str, mine: Holder, first: int) -> Claim:
        instance = self._get(number, running=True)
        journals = instance.journals.setdefault(family, [])
        found = self.rules.claim(mine, [journal.chain[-1] for journal in journals], first)
        if found.outcome == "new":
            journals.append(Journal([mine]))
        elif found.outcome == "taken":
            journals[found.number].chain.append(mine)
        return found

    def end(self, session: Open, status: str) -> None:
        """Stop or pause an instance."""
        instance = self._get(session.instance)
        others = [one for one in self.at_work(instance) if one.step.holder != session.step.holder]
        self.check(not others, "an instance was ended under another execution")
        instance.status = status

    def mark(self, session: Open, name: str) -> None:
        instance = self._get(session.instance)
        others = [one for one in self.at_work(instance) if one.step.holder != session.step.holder]
        self.check(not others, "an instance was given up or kept under another execution")
        instance.metadata[name] = "yes"

    def create_tool(self, name: str) -> bool:
        if self.tools.get(name) == "DELETING":
            return False
        self.tools[name] = "ACTIVE"
        return True

    def delete_tool(self, name: str) -> None:
        in_use = any(one.live and one.metadata.get("tool") == name for one in self.instances.values())
        if not in_use and name in self.tools:
            self.tools[name] = "DELETING"

    # Executions.

    def begin(self, run: FlowRun) -> None:
        """Begin the next attempt of a flow run."""
        run.attempt += 1
        run.state, run.suspending = "running", False
        self.latest["flow", run.id] = run.attempt
        frames = (Frame("flow", run.id, run.attempt),)
        run.main = self.fiber(run, frames, Place(), None, subflows=())
        run.main.steps = self.body(run.main, run.body, None)

    def fiber(self, run: FlowRun, frames: Any, place: Place, parent: Fiber | None, **more: Any) -> Fiber:
        made = Fiber(run, frames, place, parent, **more)
        self.fibers.append(made)
        return made

    def enter(self, parent: Fiber, scope: Scope, session: Open | None, frame: Frame, number: int) -> Fiber:
        """Begin an attempt at a scope."""
        self.latest[frame.kind, frame.id] = frame.attempt
        name = f"{scope.name}#{number}" if scope.kind == "item" and self.rules.unique_items else scope.name
        subflows = (*parent.subflows, frame.id) if frame.kind == "flow" else parent.subflows
        place = parent.place.within(scope.kind, name)
        made = self.fiber(parent.run, (*parent.frames, frame), place, parent, scope=scope, subflows=subflows)
        made.steps = self.body(made, scope.body, session)
        return made

    def body(self, fiber: Fiber, nodes: Sequence[Any], session: Open | None) -> Steps:
        for node in nodes:
            if isinstance(node, Run):
                yield from self.run_command(fiber, session, node)
            elif isinstance(node, Session):
                yield from self.session(fiber, node)
            elif isinstance(node, Scope):
                yield from self.scope(fiber, node, session)
            else:
                parts = []
                for part in node.parts:
                    made = self.fiber(fiber.run, fiber.frames, fiber.place, fiber, subflows=fiber.subflows)
                    made.steps = self.body(made, (part,), session)
                    parts.append(made)
                yield parts
                errors = [part.error for part in parts if part.error]
                if errors:
                    raise errors[0]

    def scope(self, fiber: Fiber, scope: Scope, session: Open | None) -> Steps:
        identifier = f"{next(self.numbers):032x}"
        kind = {"task": "task", "flow": "flow", "item": "item"}[scope.kind]
        for number in range(1, scope.retries + 2):
            frame = Frame(kind, identifier, number)  # type: ignore[arg-type]
            if scope.kind == "item":
                # The frame of an item in two batches, or the next attempt at one, is another frame.
                frame = Frame("item", f"{next(self.numbers):032x}")
                if not self.rules.unique_items:
                    frame = Frame("item", digest(scope.name), number)
            made = self.enter(fiber, scope, session, frame, number)
            yield [made]
            if made.error is None and made.done:
                return
            if isinstance(made.error, SuspendedError | SupersededError):
                raise made.error
        raise made.error or FailedError

    def call(self, fiber: Fiber, name: str, does: str) -> Step:
        holder = Holder((*fiber.frames, Frame("call", f"{next(self.numbers):x}")))
        return Step(name, does, fiber.run.id, fiber.place, holder)

    def ask(self, commit: Callable[[], Any], late: bool = True) -> Steps:
        """Repeat a request until there is a response."""
        while True:
            try:
                return (yield Request(commit, late))
            except LostError:
                continue

    def session(self, fiber: Fiber, node: Session) -> Steps:
        fiber.opening = True
        try:
            session = yield from self.open(fiber, node)
        finally:
            fiber.opening = False
        renewer = self.fiber(fiber.run, fiber.frames, fiber.place, fiber, renewer=session)
        renewer.steps = self.renew(session)
        why = ""
        try:
            yield from self.body(fiber, node.body, session)
        except ENDS as error:
            why = "suspended" if isinstance(error, SuspendedError) else "failed"
            if isinstance(error, GoneError) and self.is_current(fiber.frames) and not session.lost:
                excused = self.was_frozen(fiber) or self.instances[error.args[0]].broken
                self.check(excused, "an instance ended under its session")
            raise
        finally:
            # A generator that is discarded ends here, too: it must not yield then.
            if not fiber.dead:
                renewer.dead = True
                yield from self.close(fiber, session, why)
                session.ended = True

    def was_frozen(self, fiber: Fiber) -> bool:
        return (fiber.run.id, fiber.frames[0].attempt) in self.frozen

    def open(self, fiber: Fiber, node: Session) -> Steps:
        rules = self.rules
        tool = run_tool_name(node.tool, fiber.run.id) if node.spec else ""
        step = self.call(fiber, "session", node.tool)
        if rules.ordinal:
            key = (step.family, step.holder.enclosing)
            self.opened[key] = self.opened.get(key, 0) + 1
            step = replace(step, name=f"session/{self.opened[key]}")
        mine, existing = step.holder, frozenset(self.instances)
        if mine.is_retry and rules.adopt:
            found = yield from self.ask(lambda: self.find(step.family))
            if any(one.status in LIVE and self.relation_to(mine, one) == "stale" for one in found):
                raise SupersededError
            candidates = [one for one in found if rules.may_take_over(mine, one.status, one.metadata)]
            candidates.sort(key=lambda one: self.order(one))
            for one in candidates:
                try:
                    taken = yield from self.take_over(one, mine)
                except (GoneError, PausedError):
                    continue
                if taken == "stale":
                    raise SupersededError
                if taken in ("same", "superseded"):
                    later = tuple(
                        other.id
                        for other in candidates
                        if self.attempts(other) > self.attempts(one) and other.progress and not one.progress
                    )
                    session = Open(fiber, node, step, one.id, adopted=True, better=later)
                    session.renew_at = self.now + LEASE // 4
                    self.works(fiber, session)
                    return session
        generation = 0
        while True:
            while tool and not (yield from self.ask(lambda: self.create_tool(tool))):
                continue
            try:
                made = yield from self.ask(partial(self.start, fiber, step, generation, tool, existing))
            except NoToolError:
                continue
            if made.status not in LIVE and rules.generations:
                generation += 1
                continue
            if self.relation_to(mine, made) == "stale":
                raise SupersededError
            self.check(made.status in LIVE, "a session began with an instance that had ended")
            session = Open(fiber, node, step, made.id, renew_at=self.now)
            self.works(fiber, session)
            return session

    def relation_to(self, mine: Holder, one: Seen) -> str:
        theirs = holder_of(one.metadata)
        return self.rules.relation(mine, theirs) if theirs else "stranger"

    def attempts(self, one: Seen) -> tuple[int, ...]:
        theirs = holder_of(one.metadata)
        return tuple(frame.attempt for frame in theirs.enclosing) if theirs else ()

    def order(self, one: Seen) -> Any:
        theirs = holder_of(one.metadata)
        return (take_over_order(theirs) if theirs and self.rules.latest_first else (), one.id)

    def take_over(self, one: Seen, mine: Holder) -> Steps:
        if one.status in ("PAUSED", "PAUSING"):
            yield from self.ask(lambda: self.resume(one.id))
        if self.rules.renew_first:
            yield from self.ask(lambda: self.update(one.id, timeout=LEASE))
        if self.rules.compare_and_set:
            taken = yield from self.ask(lambda: self.claim_instance(one.id, mine))
        else:
            chain, released = yield from self.ask(lambda: self.read_claim(one.id))
            taken = self.rules.relation(mine, chain[-1]) if chain else "superseded"
            if not released and taken == "superseded":
                yield from self.ask(lambda: self.write_claim(one.id, mine))
        if taken in ("same", "superseded"):
            owner = Owner("", pid=1)
            yield from self.ask(lambda: self.update(one.id, **held_by(mine, owner, LEASE)))
        return taken

    def run_command(self, fiber: Fiber, session: Open | None, node: Run) -> Steps:
        assert session is not None
        step = self.call(fiber, "command", node.command)
        mine, number = step.holder, session.instance
        key = (number, step.family, mine.enclosing)
        first = self.hints.get(key, 0)
        while True:
            try:
                found = yield Request(lambda first=first: self.execute(number, step.family, mine, first))
                break
            except LostError:
                first = 0 if self.rules.repeat_from_zero else self.hints.get(key, 0)
        if found.outcome == "stale":
            raise SupersededError
        self.hints[key] = max(self.hints.get(key, 0), found.number + 1)
        self.believes(mine, number, step.family, found.number)
        # Following the command is a request, too.
        yield from self.ask(lambda: self._get(number, running=True) and None)

    def renew(self, session: Open) -> Steps:
        while True:
            while self.now < session.renew_at:
                yield None
            try:
                if self.rules.look:
                    one = yield from self.ask(lambda: self.get(session.instance), late=False)
                    if self.relation_to(session.step.holder, one) == "stale":
                        session.lost = True
                        return
                yield from self.ask(lambda: self.renewal(session), late=False)
            except GoneError:
                return
            session.renew_at = self.now + LEASE // 4

    def renewal(self, session: Open) -> None:
        instance = self._get(session.instance)
        written = holder_of(instance.metadata)
        if written is not None and relation(session.step.holder, written) == "stale" and not self.rules.look:
            self.check(False, "a superseded attempt renewed the lease of its successor")
        self.update(session.instance, timeout=LEASE)

    def close(self, fiber: Fiber, session: Open, why: str) -> Steps:
        rules, mine, number = self.rules, session.step.holder, session.instance
        mark = KEPT if why == "failed" and session.node.keep else GIVEN_UP if why == "failed" else ""
        try:
            if not why:
                self.check_end(fiber, session)
            if rules.look:
                one = yield from self.ask(lambda: self.get(number))
                if one.status not in LIVE or self.relation_to(mine, one) == "stale":
                    session.lost = True
                    return
            if rules.release and why != "suspended":
                if (yield from self.ask(lambda: self.release(number, mine, why or "done"))) != "same":
                    session.lost = True
                    return
            if mark:
                yield from self.ask(lambda: self.mark(session, mark))
            if why == "suspended":
                yield from self.ask(lambda: self.end(session, "PAUSED"), late=False)
            elif mark != KEPT:
                yield from self.ask(lambda: self.end(session, "STOPPED"))
        except (GoneError, PausedError):
            pass
        finally:
            session.ended = True
        if session.node.spec and why != "suspended":
            yield from self.ask(lambda: self.delete_tool(run_tool_name(session.node.tool, fiber.run.id)))

    def check_end(self, fiber: Fiber, session: Open) -> None:
        """At the end of a session's block: every call was executed once, in an instance that was its own."""
        instance = self.instances[session.instance]
        if not self.is_current(fiber.frames) or session.lost or not instance.live:
            return
        expected = calls_of(session.node.body)
        executed: dict[str, int] = {}
        for family, journals in instance.journals.items():
            executed[family[:16]] = executed.get(family[:16], 0) + sum(one.executions for one in journals)
        named = {Step("command", name, fiber.run.id, Place(), _ANY_CALL).what: name for name in expected}
        self.check(set(executed) <= set(named), "commands of another session were executed in the instance")
        for what, name in named.items():
            least, most = expected[name]
            self.check(least <= executed.get(what, 0) <= most, f"{name} ran {executed.get(what, 0)} times")
        for number in session.better:
            other = self.instances[number]
            if self.is_left(other, session.step.holder):
                self.check(
                    False, "an older attempt's instance was taken although a later attempt had worked in another"
                )

    # What the scheduler does.

    def ready(self) -> list[Fiber]:
        """The fibers that can go on."""
        found = []
        self.fibers = [fiber for fiber in self.fibers if fiber.alive]
        for fiber in self.fibers:
            if (fiber.run.id, -fiber.frames[0].attempt) in self.frozen:
                continue
            if fiber.renewer is not None and self.now < fiber.renewer.renew_at:
                continue
            if fiber.waiting and any(one.alive for one in fiber.waiting):
                continue
            found.append(fiber)
        return found

    def step(self, fiber: Fiber, fault: str = "") -> None:
        """Carry out the pending request of a fiber, and go on to the next one.

        Args:
            fiber: One of those that are ready.
            fault: `response`: it is carried out, the response is lost. `broken`: the same, and the instance dies.
                `request`: it is not carried out. `late`: it is carried out at some time, without a response.
        """
        result, error = None, None
        if isinstance(fiber.asked, Request):
            request = fiber.asked
            try:
                if fault == "late" and request.may_be_late:
                    self.late.append(request.commit)
                elif fault != "request":
                    result = request.commit()
                if fault == "broken" and isinstance(result, Seen) and self.instances[result.id].live:
                    self.instances[result.id].status, self.instances[result.id].broken = "FAILED", True
                if fault:
                    error = LostError()
            except ENDS as raised:
                error = LostError() if fault else raised
        self.go_on(fiber, result, error)

    def go_on(self, fiber: Fiber, result: Any, error: Exception | None) -> None:
        fiber.waiting = []
        fiber.asked = None
        try:
            asked = fiber.steps.throw(error) if error else fiber.steps.send(result)
        except StopIteration:
            fiber.done = True
        except ENDS as raised:
            fiber.done, fiber.error = True, raised
        else:
            fiber.asked = asked
            if isinstance(asked, list):
                fiber.waiting = asked
        main = fiber.run.main
        if fiber is main and fiber.done:
            ended = {type(None): "completed", SuspendedError: "suspended"}
            fiber.run.state = ended.get(type(fiber.error), "failed")
            self.check(not isinstance(fiber.error, SupersededError | NoToolError), f"a current run: {fiber.error!r}")

    def commit_late(self, which: int) -> None:
        """Carry out a request that was sent earlier."""
        commit = self.late.pop(which % len(self.late))
        try:
            commit()
        except ENDS:
            pass

    def current(self, run: FlowRun) -> list[Fiber]:
        return [one for one in self.fibers if one.alive and one.run is run and one.frames[0].attempt == run.attempt]

    def kill(self, fibers: list[Fiber]) -> None:
        for fiber in fibers:
            fiber.dead = True
            fiber.steps.close()

    def kill_run(self, run: FlowRun) -> None:
        """Kill the process of the current attempt."""
        if run.state == "running":
            self.kill(self.current(run))
            run.state = "crashed"

    def retry_run(self, run: FlowRun) -> None:
        """Begin the next attempt. An attempt that still runs goes on, without its current state."""
        if run.suspending:
            self.kill_run(run)
        if run.state != "completed":
            self.begin(run)

    def freeze(self, run: FlowRun) -> None:
        """Stop the process of the current attempt for some time, and begin the next attempt."""
        if run.state == "running" and not run.suspending:
            self.frozen |= {(run.id, -run.attempt), (run.id, run.attempt)}
            self.begin(run)

    def break_instance(self, which: int) -> None:
        """Let the cloud lose an instance."""
        live = [one for one in self.instances.values() if one.live]
        if live:
            instance = live[which % len(live)]
            instance.status, instance.broken = "FAILED", True

    def kill_earlier(self, run: FlowRun) -> None:
        """Kill what still runs of superseded attempts."""
        self.kill([one for one in self.fibers if one.alive and one.run is run and not self.is_current(one.frames)])

    def thaw(self) -> None:
        self.frozen = {(run, attempt) for run, attempt in self.frozen if attempt > 0}

    def fail(self, fiber: Fiber) -> None:
        """Let the user's code fail at its current position."""
        if fiber.renewer is None and not fiber.opening and isinstance(fiber.asked, Request) and not self.closing(fiber):
            self.go_on(fiber, None, FailedError())

    def closing(self, fiber: Fiber) -> bool:
        frame = fiber.steps
        while frame is not None:
            if frame.gi_code.co_name == "close":
                return True
            frame = frame.gi_yieldfrom
        return False

    def suspend(self, run: FlowRun) -> None:
        """Suspend a run: each of its fibers ends its sessions, innermost first."""
        current = self.current(run)
        earlier = [one for one in self.fibers if one.alive and one.run is run and one not in current]
        zombies = [one for one in current if not self.is_current(one.frames)]
        if run.state != "running" or earlier or zombies:
            return
        run.suspending = True
        for fiber in reversed(current):
            if fiber.alive and fiber.renewer is None and not fiber.opening and not self.closing(fiber):
                if isinstance(fiber.asked, Request):
                    self.go_on(fiber, None, SuspendedError())

    def repeat_scope(self, fiber: Fiber) -> None:
        """Begin the next attempt of a task or subflow although the earlier attempt still runs, as after a timeout."""
        scope, parent = fiber.scope, fiber.parent
        if scope is None or parent is None or scope.kind == "item" or fiber not in parent.waiting or not parent.alive:
            return
        if fiber.run.suspending:
            return
        if fiber.frames[-1].attempt > scope.retries:
            return
        parent.waiting = []
        fiber.parent = None
        self.go_on(parent, None, None)

    def advance(self, seconds: int) -> None:
        """Let time pass. Processes that are not frozen renew leases in time."""
        end = self.now + seconds
        while self.now < end:
            busy = any(fiber.alive and fiber.opening and fiber in self.ready() for fiber in self.fibers)
            if busy:
                return
            self.now = min(end, self.now + LEASE // 8)
            for fiber in self.ready():
                for _ in range(8):
                    if fiber.renewer is not None and fiber in self.ready():
                        self.step(fiber)
            for instance in self.instances.values():
                if instance.live and instance.status != "PAUSED" and instance.expires <= self.now:
                    instance.status = "STOPPED"
            for name in [name for name, status in self.tools.items() if status == "DELETING"]:
                del self.tools[name]
            self.check_reaper()

    def check_reaper(self) -> None:
        """Every instance of a running execution belongs to a flow run that is active."""
        for instance in self.instances.values():
            if instance.live and self.at_work(instance):
                active = {run.id for run in self.runs if run.state == "running"}
                active |= {frame.id for one in self.fibers if one.alive for frame in one.frames if frame.kind == "flow"}
                named = {one.replace("-", "") for one in flow_runs_of(instance.metadata)}
                self.check(bool(named & active), "an instance of a running execution is an orphan")

    def finish(self) -> None:
        """Execute every run to its end, with retries, and check that no instance remains."""
        self.thaw()
        for run in self.runs:
            for _ in range(4):
                self.settle()
                if run.state == "completed":
                    break
                self.retry_run(run)
            self.settle()
            self.check(run.state == "completed", f"a run without a fault is {run.state}")
        while self.late:
            self.commit_late(0)
        for _ in range(3):
            self.settle()
            self.advance(LEASE)
        left = [one for one in self.instances.values() if one.live]
        self.check(not left, "an instance outlived its lease")

    def discard(self) -> None:
        """Discard all executions without running their clean-up."""
        self.kill([one for one in self.fibers if one.alive])

    def settle(self) -> None:
        """Let all fibers go on until nothing is ready."""
        for _ in range(3000):
            ready = self.ready()
            if not ready:
                return
            self.step(ready[-1])
            if any(status == "DELETING" for status in self.tools.values()):
                self.tools = {name: status for name, status in self.tools.items() if status != "DELETING"}
        self.check(False, "an execution does not end")


_ANY_CALL = Holder((Frame("call", "any"),))


def calls_of(nodes: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """How often, at least and at most, one attempt of a body calls each command in its own session.

    A batch item that failed is executed again as another item.
    """
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if isinstance(node, Run):
            inner = {node.command: (1, 1)}
        elif isinstance(node, Session):
            inner = {}
        else:
            inner = calls_of(node.body if isinstance(node, Scope) else node.parts)
        times = node.retries + 1 if isinstance(node, Scope) and node.kind == "item" else 1
        for name, (least, most) in inner.items():
            before = found.get(name, (0, 0))
            found[name] = (before[0] + least, before[1] + most * times)
    return found
