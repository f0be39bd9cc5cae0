"""A check: a sentence that should be true, and the function that checks it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ags_flows.verify.account import Account

Status = Literal["as expected", "different", "not available here", "failed"]
Function = Callable[["Account"], object]


class Different(Exception):
    """The account works, but differs from what was expected. The message has what was seen."""


class NotAvailable(Exception):
    """The account does not have what is checked. The message has the reason."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        group: The group that it belongs to.
        sentence: What should be true.
        function: Returns what was seen, or raises `Different` or `NotAvailable`.
        slow: Whether it waits for half a minute or more.
    """

    group: str
    sentence: str
    function: Function
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        group: Its group.
        check: Its sentence.
        status: How it ended.
        seen: What was seen, in short.
        seconds: How long it took.
        learned: What it found out: names of fields of a profile.
    """

    group: str
    check: str
    status: Status
    seen: str
    seconds: float
    learned: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """Its name in a profile."""
        return f"{self.group}: {self.check}"

    def row(self) -> dict[str, Any]:
        """Return it as a row of a listing."""
        return {**asdict(self), "seconds": round(self.seconds, 2), "learned": sorted(self.learned)}


class Group:
    """The checks of one group, in their order.

    Args:
        name: Its name, as in ``--only NAME``.
        tools: How many tools it creates besides the one that all groups share.
        instances: How many instances it starts besides the one that all groups share.
        shares: What it uses of them: the tool, and the instance.
    """

    def __init__(
        self, name: str, *, tools: int = 0, instances: int = 0, shares: Sequence[str] = ("tool", "instance")
    ) -> None:
        self.name = name
        self.tools = tools
        self.instances = instances
        self.shares = shares
        self.checks: list[Check] = []

    def check(self, function: Function) -> Function:
        """Add a function; the first line of its docstring is the sentence."""
        return self._add(function, slow=False)

    def slow_check(self, function: Function) -> Function:
        """Add a function that waits for half a minute or more."""
        return self._add(function, slow=True)

    def _add(self, function: Function, *, slow: bool) -> Function:
        sentence = (inspect.getdoc(function) or "").splitlines()[0].rstrip(".")
        self.checks.append(Check(self.name, sentence, function, slow))
        return function


def expect(holds: object, seen: object) -> None:
    """Raise `Different` unless something holds.

    Args:
        holds: What should be true.
        seen: What was seen.
    """
    if not holds:
        raise Different(str(seen)[:300])
