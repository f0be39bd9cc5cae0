"""What ends an execution of the model, and the error of a violated invariant."""

from __future__ import annotations


class BrokenRuleError(AssertionError):
    """An invariant is violated."""


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
