"""The state machine that interleaves executions in the model."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .model import World
from .rules import Rules

FAULTS = ("",) * 24 + ("response",) * 2 + ("request",) + ("late",) * 4 + ("broken",)
CHOICES = st.integers(0, 7)


class Interleavings(RuleBasedStateMachine):
    """Interleave the steps of executions with kills, retries, lost and late responses, and time.

    Args:
        programs: Lists of programs to choose from. A world has one flow run for each program of a list.
        rules: Makes the rules of a world.
    """

    def __init__(self, programs: Sequence[Sequence[Any]], rules: Callable[[], Rules] = Rules) -> None:
        super().__init__()
        self.programs, self.rules = programs, rules
        self.world: World | None = None

    @initialize(which=st.integers(0, 63))
    def begin(self, which):
        self.world = World(self.programs[which % len(self.programs)], self.rules())

    def run(self, which):
        return self.world.runs[which % len(self.world.runs)]

    # Each byte picks a fiber and what happens to its request. It is one rule because drawing bytes is fast.
    @rule(order=st.binary(min_size=1, max_size=20))
    def go_on(self, order):
        for byte in order:
            ready = self.world.ready()
            if not ready:
                return
            self.world.step(ready[byte % 8 % len(ready)], FAULTS[byte // 8])

    @rule(order=st.binary(min_size=1, max_size=12))
    def go_on_without_faults(self, order):
        for byte in order:
            ready = self.world.ready()
            if not ready:
                return
            self.world.step(ready[byte % len(ready)])

    @rule(which=CHOICES, retried=st.booleans())
    def kill(self, which, retried):
        self.world.kill_run(self.run(which))
        if retried:
            self.world.retry_run(self.run(which))

    @rule(which=CHOICES)
    def retry(self, which):
        self.world.retry_run(self.run(which))

    @rule(which=CHOICES, order=st.binary(min_size=1, max_size=20))
    def retry_beside(self, which, order):
        """Let an attempt and the next one continue in turns."""
        self.world.retry_run(self.run(which))
        self.go_on_without_faults(order)

    @rule(which=CHOICES)
    def freeze(self, which):
        self.world.freeze(self.run(which))

    @precondition(lambda self: self.world and self.world.frozen)
    @rule()
    def thaw(self):
        self.world.thaw()

    @rule(which=CHOICES)
    def suspend(self, which):
        self.world.suspend(self.run(which))

    @rule(which=CHOICES)
    def kill_earlier(self, which):
        self.world.kill_earlier(self.run(which))

    @precondition(lambda self: self.world and self.world.late)
    @rule(which=CHOICES)
    def commit_late(self, which):
        self.world.commit_late(which)

    @precondition(lambda self: self.world and self.world.instances)
    @rule(which=CHOICES)
    def break_instance(self, which):
        self.world.break_instance(which)

    @rule(which=CHOICES)
    def fail(self, which):
        ready = self.world.ready()
        if ready:
            self.world.fail(ready[which % len(ready)])

    @rule(which=CHOICES)
    def repeat_scope(self, which):
        alive = [fiber for fiber in self.world.fibers if fiber.alive and fiber.scope]
        if alive:
            self.world.repeat_scope(alive[which % len(alive)])

    @rule(seconds=st.sampled_from([60, 200, 700, 2000]))
    def advance(self, seconds):
        self.world.advance(seconds)

    def teardown(self):
        if self.world is None:
            return
        try:
            if not self.world.broken:
                self.world.finish()
        finally:
            self.world.discard()
