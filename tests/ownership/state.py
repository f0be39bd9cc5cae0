"""What the model keeps: instances and their journals, sessions, fibers and flow runs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ags_flows.ownership import LIVE, Frame, Holder, Place, Step

from .nodes import Scope, Session

LEASE = 900
EPOCH = datetime(2026, 11, 23, tzinfo=timezone.utc)


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
