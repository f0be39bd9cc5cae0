"""The executions of the model: fibers that follow the rules of ownership, one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ags_flows.ownership import (
    KEPT,
    LIVE,
    Frame,
    Holder,
    Owner,
    Place,
    Step,
    digest,
    held_by,
    holder_of,
    relation,
    run_tool_name,
    take_over_order,
)

from .cloud import Cloud
from .errors import (
    ENDS,
    FailedError,
    GoneError,
    LostError,
    NoToolError,
    PausedError,
    SupersededError,
    SuspendedError,
)
from .nodes import Run, Scope, Session, calls_of
from .rules import Rules
from .state import LEASE, Fiber, FlowRun, Open, Request, Seen, Steps

_ANY_CALL = Holder((Frame("call", "any"),))


class Executions(Cloud):
    """Flow runs, tasks, subflows and batch items, and the sessions and commands in them."""

    def __init__(self, rules: Rules, first_number: int) -> None:
        super().__init__(rules, first_number)
        self.fibers: list[Fiber] = []
        self.frozen: set[tuple[str, int]] = set()
        self.hints: dict[Any, int] = {}
        self.opened: dict[Any, int] = {}

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
        tool = run_tool_name(node.tool, "", fiber.run.id) if node.spec else ""
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
                if taken == "ended":
                    yield from self.ask(lambda: self.stop_left(one.id), late=False)  # noqa: B023
                    continue
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
        mark = KEPT if why == "failed" and session.node.keep else ""
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
            yield from self.ask(lambda: self.delete_tool(run_tool_name(session.node.tool, "", fiber.run.id)))

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
