"""Changes of a sandbox that a retry does not make again: files that were sent, written or removed, and the like.

A retry finds the commands of the earlier attempt and does not run them again, so it must not undo what they did: a file
that a command has edited would be replaced by the one that was sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import persistently
from ags_flows.durable.claims import claim, record, remember, request_for
from ags_flows.errors import AGSFlowsError, SupersededError, UnsupportedError
from ags_flows.ownership import Step

LARGEST_RECORD = 1 << 20
"""Bytes of a record that are taken into memory."""

KIND = "change"
"""The directory of the claims of changes."""

R = TypeVar("R")


def change_once(
    plane: DataPlane, step: Step, change: Callable[[], R], dump: Callable[[R], str], load: Callable[[str], R]
) -> R:
    """Make a change, or return what an earlier attempt of the step returned for it.

    A change is recorded in the sandbox after it was made, which costs one request. If the process dies in between, a
    retry makes it again: no step that came after it has begun. A command that ran at the same time may have used it.
    Outside of runs there is no retry, and no record. In a sandbox that cannot hold claims there are no durable
    commands either, and a retry makes the change again.

    Args:
        plane: The sandbox.
        step: The step.
        change: Makes the change. It can be repeated.
        dump: Turns what it returns into text, at most some kilobytes.
        load: Turns that text back.

    Raises:
        SupersededError: A later attempt of the same run has taken the sandbox over.
    """
    if not step.holder.enclosing:
        return change()
    try:
        if step.holder.is_retry:
            claimed = claim(plane, request_for(plane, KIND, step))
            remember(plane, KIND, step, claimed.directory.rpartition("/")[2])
            if claimed.has_result:
                kept = persistently(lambda: plane.read(f"{claimed.directory}/result", limit=LARGEST_RECORD))
                return load(kept.decode())
    except UnsupportedError:
        return change()
    made = change()
    try:
        claimed = record(plane, request_for(plane, KIND, step), dump(made))
        remember(plane, KIND, step, claimed.directory.rpartition("/")[2])
    except AGSFlowsError as error:
        # The change is made. Without a record, a retry makes it again.
        if error.retryable or isinstance(error, SupersededError):
            raise
    return made
