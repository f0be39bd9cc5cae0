"""How an instance gets its machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from . import configuration, mounts
from .instance import Instance
from .machine import Launch, Machine, Plan
from .refusal import Refusal
from .settings import Settings

T = TypeVar("T")


def plan_of(instance: Instance, settings: Settings, seed: Path | None) -> Plan:
    """Return the machine that an instance is to have.

    Args:
        instance: The instance.
        settings: Those of the emulator.
        seed: The saved file system to start from.

    Raises:
        Refusal: ``FailedOperation.StorageMount`` when a mount has no directory.
    """
    custom = instance.custom or {}
    resources = custom.get("Resources") or {}
    storage, memory = resources.get("Storage"), resources.get("Memory")
    env = {each["Name"]: each.get("Value") or "" for each in custom.get("Env") or []}
    env.update(instance.e2b.get("envVars") or {})
    return Plan(
        sandbox_id=instance.instance_id,
        directory=settings.directory / "machines" / instance.instance_id,
        tokens=instance.tokens,
        seed=seed,
        image=mounts.files_of_image(settings.volumes, custom.get("Image")),
        network=instance.network_mode != "SANDBOX" and instance.e2b.get("allowInternetAccess") is not False,
        storage_bytes=configuration.kibibytes(storage, "Storage") * 1024 if storage else None,
        memory_bytes=configuration.kibibytes(memory, "Memory") * 1024 if memory else None,
        mounts=tuple(mounts.on_host(settings.volumes, instance.mounts)),
        env=env,
        interprets=instance.tool_type in ("code-interpreter", "aio"),
        serves_agents=instance.tool_type == "swebench",
        envd_version=settings.envd_version,
    )


async def launched(launch: Launch, plan: Plan) -> Machine:
    """Launch a machine; when cancelled meanwhile, leave none behind."""
    launching = asyncio.ensure_future(launch(plan))
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await unshaken(_launched_in_vain(launching))
        raise


async def unshaken(work: Awaitable[T]) -> T:
    """Finish some work however often the caller is cancelled meanwhile; the cancellation follows then."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()
        raise asyncio.CancelledError
    return task.result()


async def _launched_in_vain(launching: asyncio.Future[Machine]) -> None:
    machine = await launching
    await machine.stop()


async def copied(source: Path, target: Path) -> None:
    """Copy a saved file system.

    Raises:
        Refusal: ``FailedOperation`` when it cannot be copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        "cp", "-a", "--reflink=auto", "--", str(source), str(target), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        raise Refusal("FailedOperation", f"The files could not be copied: {errors.decode(errors='replace')[:200]}")
