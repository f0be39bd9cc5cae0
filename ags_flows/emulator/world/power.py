"""How an instance gets its machine, and loses it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ags_flows.emulator.reach import NOWHERE, Reach
from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.sandbox.outliving import Life
from ags_flows.emulator.world import configuration, mounts
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.machine import Launch, Machine, Plan
from ags_flows.emulator.world.readiness import get_ready
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.settings import Settings

if TYPE_CHECKING:
    from ags_flows.emulator.world.world import World

logger = logging.getLogger("ags_flows.emulator")

T = TypeVar("T")


class Power:
    """The machines of one world's instances."""

    def __init__(self, world: World) -> None:
        self._world = world

    def parking_of(self, instance: Instance) -> Path:
        """Return where the files of an instance without a machine are."""
        return self._world.settings.directory / "parked" / instance.instance_id

    async def on(self, instance: Instance, seed: Path | None) -> None:
        """Start the machine, and the image's command when there is one; return when it is ready."""
        plan = self._plan(instance, seed)
        await asyncio.to_thread(remove_tree, plan.directory)
        instance.machine = await launched(self._world.launch, plan)
        await get_ready(instance.machine, instance.custom or {})

    async def off(self, instance: Instance) -> None:
        """End the machine, if there is one."""
        machine, instance.machine = instance.machine, None
        if machine is not None:
            try:
                await unshaken(machine.stop())
            except Exception as error:
                logger.error("instance %s: its sandbox did not stop cleanly", instance.instance_id, exc_info=error)

    async def save(self, instance: Instance, target: Path) -> None:
        """Copy an instance's files to a directory, while it stands still.

        Raises:
            Refusal: ``FailedOperation`` when it ended during the copy, or the copy failed.
        """
        if instance.machine is None:
            kept = self.parking_of(instance)
            if not kept.exists():
                raise Refusal("FailedOperation", f"Instance {instance.instance_id} has no file system any more.")
            await copied(kept, target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        machine, frozen = instance.machine, instance.status == "PAUSED"
        try:
            if not frozen:
                await machine.freeze()
            try:
                await machine.save(target)
            finally:
                if not frozen and instance.machine is machine and instance.status == "RUNNING":
                    await machine.thaw()
        except OSError as error:
            raise Refusal("FailedOperation", f"The files could not be saved: {error}.") from error

    async def park(self, instance: Instance) -> None:
        """Keep the files of the machine for the next one."""
        assert instance.machine is not None
        parking = self.parking_of(instance)
        await asyncio.to_thread(remove_tree, parking)
        parking.parent.mkdir(parents=True, exist_ok=True)
        await instance.machine.save(parking)

    async def unpark(self, instance: Instance) -> None:
        """Forget the files that were kept."""
        await asyncio.to_thread(remove_tree, self.parking_of(instance))

    # Machines that outlive their emulator.

    def outlives(self, instance: Instance) -> bool:
        """Return True if its machine can go on without this emulator: it is noted in the state directory."""
        return instance.machine is not None and self.was_left(instance)

    def was_left(self, instance: Instance) -> bool:
        """Return True if an earlier emulator has left its machine."""
        return Life.read(machine_directory(self._world.settings, instance)) is not None

    async def leave(self, instance: Instance) -> None:
        """Let go of the machine, and let it run."""
        machine, instance.machine = instance.machine, None
        if machine is not None:
            await unshaken(machine.leave())

    async def take_over(self, instance: Instance) -> None:
        """Go on with the machine that an earlier emulator has left."""
        instance.machine = await launched(self._world.launch, replace(self._plan(instance, None), adopted=True))

    def _plan(self, instance: Instance, seed: Path | None) -> Plan:
        return replace(plan_of(instance, self._world.settings, seed), keeper=self._world.keeper)


PREFECT_IMAGE = "prefecthq/prefect"
"""Its sandboxes have this program's Python with Prefect: no image is pulled."""


def machine_directory(settings: Settings, instance: Instance) -> Path:
    """Return where an instance's machine is."""
    return settings.directory / "machines" / instance.instance_id


def plan_of(instance: Instance, settings: Settings, seed: Path | None) -> Plan:
    """Return the description of an instance's machine.

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
        directory=machine_directory(settings, instance),
        tokens=instance.tokens,
        seed=seed,
        image=mounts.files_of_image(settings.volumes, custom.get("Image")),
        network=_reach_of(instance),
        host_ports=settings.host_ports,
        has_prefect=(custom.get("Image") or "").partition(":")[0].endswith(PREFECT_IMAGE),
        storage_bytes=configuration.kibibytes(storage, "Storage") * 1024 if storage else None,
        memory_bytes=configuration.kibibytes(memory, "Memory") * 1024 if memory else None,
        mounts=tuple(mounts.on_host(settings.volumes, instance.mounts)),
        env=env,
        interprets=instance.tool_type in ("code-interpreter", "aio"),
        serves_agents=instance.tool_type == "swebench",
        envd_version=settings.envd_version,
    )


def _reach_of(instance: Instance) -> Reach:
    if instance.network_mode == "SANDBOX":
        return NOWHERE
    return Reach.of(instance.e2b.get("network") or {}, instance.e2b.get("allowInternetAccess"))


async def launched(launch: Launch, plan: Plan) -> Machine:
    """Launch a machine. If cancelled, leave none behind."""
    launching = asyncio.ensure_future(launch(plan))
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await unshaken(_launched_in_vain(launching))
        raise


async def unshaken(work: Awaitable[T]) -> T:
    """Finish some work however often the caller is cancelled, and then raise the cancellation."""
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
