"""The parts of a program: commands, sessions, tasks, subflows, batch items and parallel blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
