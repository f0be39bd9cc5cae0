"""How long the platform's asynchronous steps take, and whether they succeed.

All steps are declared here, in `DEFAULTS`, and each can be switched while the emulator runs:

=================  ==========================  =================================
step               from                        to (or, when it fails)
=================  ==========================  =================================
tool.create        CREATING                    ACTIVE (FAILED)
tool.delete        DELETING                    gone (stays ACTIVE)
instance.start     STARTING                    RUNNING (STARTING_FAILED)
instance.stop      STOPPING                    STOPPED (STOP_FAILED)
instance.pause     PAUSING                     PAUSED (RUNNING again)
instance.resume    RESUMING                    RUNNING (RESUME_FAILED)
precache.create    PROCESSING                  SUCCESS (FAILED)
snapshot.create    (the request)               ACTIVE (FailedOperation)
=================  ==========================  =================================

A step that does real work (all of ``instance.*``) is never shorter than that work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from ags_flows.emulator.world.clock import Clock
from ags_flows.emulator.world.given import EXACT, Seconds, Times

Mode = Literal["at_once", "reads", "seconds", "never", "fail"]


class StepFailed(Exception):
    """A step that was declared to fail did so; the text is the reason to show."""


@dataclass(frozen=True)
class Transition:
    """How one step goes.

    Args:
        mode: ``at_once``: it is done before the response, after ``value`` seconds. ``reads``: after it has
            been read ``value`` times. ``seconds``: ``value`` seconds later. ``never``: not until it is declared
            differently. ``fail``: it fails after ``value`` seconds.
        value: A count or seconds, see mode.
        reason: The reason that a failure shows, for ``fail``.
        times: For how many uses this holds before the default returns. None: no limit.
    """

    mode: Mode
    value: Seconds = 0.0
    reason: str = ""
    times: Times | None = None

    __pydantic_config__: ClassVar[ConfigDict] = EXACT


DEFAULTS: dict[str, Transition] = {
    "tool.create": Transition("seconds", 0.2),
    "tool.delete": Transition("at_once"),
    "instance.start": Transition("seconds", 0.0),
    "instance.stop": Transition("seconds", 0.0),
    "instance.pause": Transition("seconds", 0.0),
    "instance.resume": Transition("seconds", 0.0),
    "precache.create": Transition("seconds", 0.2),
    "snapshot.create": Transition("at_once"),
}


class Pending:
    """One step under way."""

    def __init__(self, owner: Transitions, step: str, how: Transition) -> None:
        """Use `Transitions.begin` instead."""
        self._owner = owner
        self.step = step
        self.how = how
        self._began = owner.clock.now()
        self._reads = 0
        self._released = asyncio.Event()

    @property
    def at_once(self) -> bool:
        """Whether the request that began the step is to wait for it."""
        return self.how.mode == "at_once"

    @property
    def timed(self) -> bool:
        """Whether it ends some time after its beginning; work that is done within that time makes it no longer."""
        return self.how.mode in ("seconds", "at_once")

    def read(self) -> None:
        """Note that a request has read the resource."""
        self._reads += 1
        if self.how.mode == "reads" and self._reads >= self.how.value:
            self._released.set()

    def release(self) -> None:
        """Let the step go on as if it had been declared ``at_once``."""
        self._released.set()

    async def wait(self) -> None:
        """Return when the step may be completed.

        Raises:
            StepFailed: if it is declared to fail.
        """
        try:
            if self.how.mode == "reads" and self.how.value <= self._reads:
                return
            if self.how.mode in ("never", "reads"):
                await self._released.wait()
            elif (left := self._began + self.how.value - self._owner.clock.now()) > 0:
                await self._owner.clock.sleep(left)
            if self.how.mode == "fail":
                raise StepFailed(self.how.reason or f"{self.step} was declared to fail")
        finally:
            self._owner.forget(self)


class Transitions:
    """The declared steps of one emulator."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._declared: dict[str, Transition] = dict(DEFAULTS)
        self._baseline: dict[str, Transition] = dict(DEFAULTS)
        self._pending: set[Pending] = set()

    def declare(self, step: str, how: Transition, *, baseline: bool = False) -> None:
        """Set how a step goes from now on; steps that hang (``never``, ``reads``) are let go.

        Args:
            step: One of `DEFAULTS`.
            how: How it goes.
            baseline: Whether `reset` is to return to this.

        Raises:
            ValueError: for an unknown step.
        """
        if step not in DEFAULTS:
            raise ValueError(f"unknown step {step!r}; known: {', '.join(sorted(DEFAULTS))}")
        self._declared[step] = how
        if baseline:
            self._baseline[step] = how
        for pending in [each for each in self._pending if each.step == step]:
            pending.release()

    def reset(self) -> None:
        """Return to the defaults and let hanging steps go."""
        self._declared = dict(self._baseline)
        for pending in list(self._pending):
            pending.release()

    def begin(self, step: str) -> Pending:
        """Begin a step."""
        how = self._declared[step]
        if how.times is not None:
            left = how.times - 1
            self._declared[step] = replace(how, times=left) if left > 0 else self._baseline[step]
        pending = Pending(self, step, how)
        self._pending.add(pending)
        return pending

    def forget(self, pending: Pending) -> None:
        """Note that a step is over."""
        self._pending.discard(pending)

    def describe(self) -> dict[str, Any]:
        """Return the declarations as JSON values."""
        return {
            step: {"mode": how.mode, "value": how.value, "reason": how.reason, "times": how.times}
            for step, how in sorted(self._declared.items())
        }
