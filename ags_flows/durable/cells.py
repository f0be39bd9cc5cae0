"""Actions that run once in a sandbox and have one result: code cells, interpreter contexts, shell commands.

The interpreter does not remember its requests. So a cell is claimed in the sandbox before it is sent, and its result is
stored in the claim's directory. A later attempt of the step reads the result. If an earlier attempt left a claim
without a result, the outcome is unknown: the code may have run, and is not sent again. If the same call left a claim
without a result, the cell was not sent, because errors after sending are not retried.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import persistently
from ags_flows.durable.claims import Claimed, claim, remember, request_for
from ags_flows.errors import AGSFlowsError, CodeTimeoutError, CommandTimeoutError, OutcomeUnknownError
from ags_flows.ownership import Step

MOST_KEPT = 64 << 20
"""Largest result in bytes that is stored. For a larger one, a later attempt gets an unknown outcome."""

R = TypeVar("R")


@dataclass(frozen=True)
class Once:
    """An action that runs once.

    Attributes:
        plane: The sandbox.
        kind: Name of the directory of its claims: letters.
        step: The step.
        repeatable: Whether the action may be repeated if an earlier attempt left no result.
        refusals: Error classes, besides those of this package, that mean that the action was not executed.
    """

    plane: DataPlane
    kind: str
    step: Step
    repeatable: bool = False
    refusals: tuple[type[Exception], ...] = ()

    def run(self, execute: Callable[[], R], dump: Callable[[R], str], load: Callable[[bytes], R]) -> tuple[R, Claimed]:
        """Execute the action, or return the result of an earlier attempt.

        Args:
            execute: Executes the action. Its errors, except unknown outcomes and timeouts, mean that it was not
                executed.
            dump: Converts a result to text.
            load: Converts that text back to a result.

        Returns:
            The result, and the claim.

        Raises:
            OutcomeUnknownError: An earlier attempt started the action and left no result.
            SupersededError: A later attempt of the same run has the claim.
            UnsupportedError: The sandbox does not support claims.
        """
        plane = self.plane
        claimed = claim(plane, request_for(plane, self.kind, self.step))
        remember(plane, self.kind, self.step, claimed.directory.rpartition("/")[2])
        if claimed.has_result:
            return load(persistently(lambda: plane.read(f"{claimed.directory}/result"))), claimed
        if claimed.outcome == "taken" and not self.repeatable:
            raise OutcomeUnknownError(
                f"An earlier attempt started this step in {plane.instance_id} and left no result.",
                hint="It may have run. Inspect the sandbox, or run the step again in a new one.",
            )
        try:
            result = execute()
        except (CodeTimeoutError, CommandTimeoutError, OutcomeUnknownError):
            raise
        except Exception as error:
            if isinstance(error, (AGSFlowsError, *self.refusals)):
                # It was rejected before it ran: a later attempt may send it.
                with suppress(AGSFlowsError):
                    persistently(lambda: plane.remove(claimed.directory))
            raise
        text = dump(result).encode()
        if len(text) <= MOST_KEPT:
            # If the result cannot be stored, a later attempt gets an unknown outcome. This attempt has the result.
            with suppress(AGSFlowsError):
                persistently(lambda: plane.write(f"{claimed.directory}/new", text))
                persistently(lambda: plane.move(f"{claimed.directory}/new", f"{claimed.directory}/result"))
        return result, claimed
