"""Actions that run once in a sandbox and have one result: code cells, interpreter contexts, shell commands.

The interpreter does not remember its requests. So a cell is claimed in the sandbox before it is sent, and its result is
stored in the claim's directory. A later attempt of the step reads the result. If an earlier attempt left a claim
without a result, the outcome is unknown: the code may have run, and is not sent again. If the same call left a claim
without a result, the cell was not sent, because errors after sending are not retried.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import persistently
from ags_flows.durable.claims import Claimed, abandon, claim, remember, request_for
from ags_flows.errors import AGSFlowsError, CodeTimeoutError, CommandTimeoutError, OutcomeUnknownError
from ags_flows.ownership import Step

SLOWEST = 256 << 10
"""Bytes a second that a result is given at least on its way, on top of a minute."""

LONGEST_READ = 600.0
"""Seconds that it may take to read a result back."""

R = TypeVar("R")


@dataclass(frozen=True)
class Once:
    """An action that runs once.

    Attributes:
        plane: The sandbox.
        kind: Name of the directory of its claims: letters.
        step: The step.
        repeatable: Whether it is harmless to do it again where an earlier attempt left no result.
        refusals: Errors that mean that it was not done, besides those of this package.
        on_trouble: Gets a sentence when the result cannot be kept for a retry.
    """

    plane: DataPlane
    kind: str
    step: Step
    repeatable: bool = False
    refusals: tuple[type[Exception], ...] = ()
    on_trouble: Callable[[str], object] = lambda text: None

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
            return load(persistently(lambda: plane.read(f"{claimed.directory}/result", timeout=LONGEST_READ))), claimed
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
                    abandon(plane, claimed, self.step.holder)
            raise
        self._keep(claimed, dump(result).encode())
        return result, claimed

    def _keep(self, claimed: Claimed, data: bytes) -> None:
        """Leave the result for a later attempt. This one has it, and goes on if that fails."""
        plane, new = self.plane, f"{claimed.directory}/new"
        try:
            # As a stream: its time limit grows with its size.
            persistently(lambda: plane.write(new, io.BytesIO(data), timeout=60.0 + len(data) / SLOWEST))
            persistently(lambda: plane.move(new, f"{claimed.directory}/result"))
        except AGSFlowsError as error:
            self.on_trouble(
                f"The result ({len(data):,} bytes) cannot be kept in {plane.instance_id}: a retry of this step will "
                f"raise OutcomeUnknownError. {error}"
            )
            with suppress(AGSFlowsError):
                plane.remove(new)
