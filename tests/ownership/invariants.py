"""What is true in the model, which no execution can see, and what is checked against it."""

from __future__ import annotations

import itertools

from ags_flows.ownership import KEPT, Frame, Holder, holder_of, may_take_over, relation

from .errors import BrokenRuleError
from .rules import Rules
from .state import Fiber, Instance, Open


class Invariants:
    """Compares what executions believe with what is true.

    Args:
        rules: The rules that executions follow.
        first_number: The first number for an id that is not one of a flow run.
    """

    def __init__(self, rules: Rules, first_number: int) -> None:
        self.rules = rules
        self.now = 0
        self.broken = False
        self.instances: dict[int, Instance] = {}
        self.latest: dict[tuple[str, str], int] = {}
        self.attached: dict[tuple[int, str, int], list[Holder]] = {}
        self.numbers = itertools.count(first_number)

    def is_current(self, frames: tuple[Frame, ...]) -> bool:
        """Return True if no later attempt of anything on a path has begun."""
        return all(self.latest.get((frame.kind, frame.id), frame.attempt) == frame.attempt for frame in frames)

    def at_work(self, instance: Instance) -> list[Open]:
        """Sessions of current, living executions that work in an instance."""
        return [
            one
            for one in instance.sessions
            if not one.ended and not one.lost and one.fiber.alive and self.is_current(one.fiber.frames)
        ]

    def is_left(self, instance: Instance, mine: Holder) -> bool:
        """Return True if an earlier attempt left an instance for a holder to take over."""
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
