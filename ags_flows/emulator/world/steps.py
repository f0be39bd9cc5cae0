"""The tasks in which steps of instances run."""

from __future__ import annotations

import asyncio

from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.power import unshaken


def let_go(instance: Instance, task: asyncio.Task[None]) -> None:
    """Drop a step that is over, unless another one has begun."""
    if instance.task is task:
        instance.task = None


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end, unless it is the current task."""
    if task is None or task.done() or task is asyncio.current_task():
        return
    task.cancel()
    await unshaken(asyncio.wait([task]))
