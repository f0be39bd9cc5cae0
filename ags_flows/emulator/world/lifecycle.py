"""The course of an instance: started, run, paused, resumed, ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.reach import Reach
from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.world import configuration
from ags_flows.emulator.world.instance import ENDED, Instance
from ags_flows.emulator.world.machine import Machine
from ags_flows.emulator.world.power import Power
from ags_flows.emulator.world.readiness import NotReady
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.snapshots import Snapshot
from ags_flows.emulator.world.steps import cancelled, let_go
from ags_flows.emulator.world.transitions import StepFailed

if TYPE_CHECKING:
    from ags_flows.emulator.world.world import World

logger = logging.getLogger("ags_flows.emulator")


class Course:
    """What happens to the instances of one region. Statuses change only here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.power = Power(world)
        self._instances: dict[str, Instance] = {}

    def find(self, instance_id: str) -> Instance | None:
        """Return an instance by its id, or None."""
        return self._instances.get(instance_id)

    def keep(self, instance: Instance) -> None:
        """Note an instance in the state directory."""
        if instance.instance_id in self._instances:
            self._world.store.put("instances", instance.instance_id, instance.dump())

    def forget(self, instance: Instance) -> None:
        """Remove an instance that has ended from all lists."""
        self._instances.pop(instance.instance_id, None)
        if instance.e2b:
            self._world.forgotten_of_e2b.append(instance.instance_id)
        self._world.store.drop("instances", instance.instance_id)

    # Steps that requests ask for.

    def bring_up(self, instance: Instance, *, origin: Snapshot | Instance | None = None) -> None:
        """Begin to start an instance that is new, as a copy of ``origin`` if one is given."""
        instance.status = "STARTING"
        self._begin(instance, "instance.start", self._bring_up(instance, origin))

    def pause(self, instance: Instance, *, memory: bool = True) -> None:
        """Begin to pause a running instance; without memory only its files are kept.

        Raises:
            Refusal: when it is not RUNNING or too many are paused.
        """
        self.need(instance, "RUNNING")
        paused = [each for each in self._world.all_instances(instance.region) if each.status == "PAUSED"]
        self._world.limits.check("paused", len(paused), "LimitExceeded")
        self._still(instance)
        instance.status, instance.paused_memory = "PAUSING", memory
        self._begin(instance, "instance.pause", self._pause(instance, memory))

    def resume(self, instance: Instance, timeout: int, *, memory: bool = True) -> None:
        """Begin to resume a paused instance; without memory it boots again from its files.

        Raises:
            Refusal: when it is not PAUSED, or the quota of running instances is used up.
        """
        self.need(instance, "PAUSED")
        live = [
            each for each in self._world.all_instances(instance.region) if not each.ended and each.status != "PAUSED"
        ]
        self._world.limits.check("instances", len(live), "LimitExceeded.SandboxInstance")
        instance.status = "RESUMING"
        if not instance.persistent:
            instance.timeout = timeout
        self._begin(instance, "instance.resume", self._resume(instance, memory))

    def stop(self, instance: Instance, reason: str = "manual") -> None:
        """Begin to end an instance.

        Raises:
            Refusal: ``UnsupportedOperation.SandboxInstance`` when it has ended already.
        """
        if instance.ended:
            raise Refusal(
                "UnsupportedOperation.SandboxInstance",
                f"Sandbox instance {instance.instance_id} is in {instance.status} state and cannot be stopped.",
            )
        if instance.status == "STOPPING":
            return
        self._still(instance)
        before = instance.task
        if before is not None:
            # Before its gate is opened by the step that follows.
            before.cancel()
        instance.status = "STOPPING"
        self._begin(instance, "instance.stop", self._take_down(instance, before, reason))

    def restart_countdown(self, instance: Instance, timeout: int) -> None:
        """Let a running instance end after this number of seconds from now."""
        if not self._world.profile.shortens_timeouts:
            self.extend(instance, timeout)
            return
        instance.timeout = timeout
        self._count_down(instance, self._world.clock.now() + timeout)
        self.keep(instance)

    def extend(self, instance: Instance, timeout: int) -> None:
        """Let a running instance live for at least this number of seconds from now; never shorten its life."""
        due = self._world.clock.now() + timeout
        if instance.expires_at is not None and due > instance.expires_at:
            instance.timeout = timeout
            self._count_down(instance, due)
            self.keep(instance)

    def set_network(self, instance: Instance, network: Reach) -> None:
        """Let an instance reach other machines, or not.

        Raises:
            Refusal: when it does not run.
        """
        self.need(instance, "RUNNING")
        if instance.machine is not None:
            instance.machine.set_network(network)

    def need(self, instance: Instance, status: str) -> None:
        """Check that an instance has this status.

        Raises:
            Refusal: ``UnsupportedOperation.SandboxInstance``.
        """
        if instance.status != status:
            raise Refusal(
                "UnsupportedOperation.SandboxInstance",
                f"Sandbox instance {instance.instance_id} is {instance.status}; this needs {status}.",
            )

    async def settle(self, instance: Instance) -> None:
        """Wait until the latest step is over, also if it failed."""
        while instance.task is not None and not instance.task.done():
            await asyncio.wait([instance.task])

    async def die(self, instance: Instance, why: str = "the sandbox died") -> None:
        """End an instance as if its sandbox had died without a request."""
        if instance.ended:
            return
        self._still(instance)
        before, instance.task = instance.task, None
        instance.status, instance.status_reason, instance.stop_reason = "FAILED", why, "error"
        await cancelled(before)
        await self._end_machine(instance)
        self._ended(instance)

    def revive(self, instance: Instance) -> None:
        """Go on with an instance that an earlier emulator left in the state directory."""
        now = self._world.clock.now()
        if instance.ended or instance.status in ("STOPPING", "STOP_FAILED"):
            if not instance.ended:
                instance.status, instance.stop_reason = "STOPPED", instance.stop_reason or "system"
            self._ended(instance, instance.ended_at)
        elif instance.status in ("PAUSED", "PAUSING"):
            # Its processes are gone with the earlier emulator; its files are not.
            instance.status, instance.paused_memory = "PAUSED", False
            self.keep(instance)
        elif instance.expires_at is not None and instance.expires_at <= now and not instance.lifecycle.auto_pause:
            instance.status, instance.stop_reason = "STOPPED", "timeout"
            self._ended(instance)
        else:
            instance.status = "STARTING"
            due = instance.expires_at
            self._begin(instance, "instance.start", self._bring_up(instance, None, due=due, revived=True))

    async def close(self, instance: Instance) -> None:
        """End an instance's processes with the emulator itself; its files stay when the state is kept."""
        self._still(instance)
        task, instance.task = instance.task, None
        await cancelled(task)
        if instance.machine is not None and self._world.settings.keep:
            try:
                await self.power.save(instance, self.power.parking_of(instance))
            except (Refusal, OSError) as error:
                logger.warning("instance %s: its files are lost: %s", instance.instance_id, error)
        await self._end_machine(instance)

    async def leave(self, instance: Instance) -> None:
        """Let go of an instance for another emulator to go on with; one that cannot do without is closed."""
        if instance.status != "RUNNING" or instance.expires_at is None or not self.power.outlives(instance):
            return await self.close(instance)
        self._still(instance)
        await self._unwatch(instance)
        await self.power.leave(instance)

    async def discard(self, instance: Instance) -> None:
        """End an instance immediately and leave nothing of it."""
        self._still(instance)
        task, instance.task = instance.task, None
        await cancelled(task)
        await self._end_machine(instance)
        await self.power.unpark(instance)

    # The steps themselves.

    def _begin(self, instance: Instance, step: str, course: Coroutine[Any, Any, None]) -> None:
        if instance.pending is not None:
            instance.pending.release()
        instance.pending = self._world.transitions.begin(step)
        instance.updated = self._world.clock.now()
        self.keep(instance)
        instance.task = task = self._world.spawn(course)
        task.add_done_callback(lambda _: let_go(instance, task))

    async def _bring_up(
        self,
        instance: Instance,
        origin: Snapshot | Instance | None,
        *,
        due: float | None = None,
        revived: bool = False,
    ) -> None:
        failed = "STARTING_FAILED"
        try:
            broken = configuration.unpullable((instance.custom or {}).get("Image"))
            if broken or revived or instance.pending is None or not instance.pending.timed:
                await self._pass(instance)
            if broken:
                raise StepFailed(broken)
            if revived and self.power.was_left(instance):
                await self.power.take_over(instance)
                self._run(instance, due)
                return
            seed, temporary = None, False
            if revived and self.power.parking_of(instance).exists():
                seed, temporary = self.power.parking_of(instance), True
            elif isinstance(origin, Snapshot):
                seed = self._world.regions[instance.region].snapshots.directory(origin.snapshot_id)
            elif origin is not None:
                failed = "FORK_FAILED"
                seed, temporary = self._world.settings.directory / "forks" / instance.instance_id, True
                await self.power.save(origin, seed)
                failed = "STARTING_FAILED"
            try:
                await self.power.on(instance, seed)
            finally:
                if temporary and seed is not None:
                    await asyncio.to_thread(remove_tree, seed)
            await self._pass(instance)
        except asyncio.CancelledError:
            await self._end_machine(instance)
            raise
        except Exception as error:
            await self._fail(instance, failed, error)
            return
        self._run(instance, due)

    async def _pause(self, instance: Instance, memory: bool) -> None:
        try:
            await self._pass(instance)
            if instance.machine is not None:
                await instance.machine.freeze()
                if not memory:
                    await self.power.park(instance)
                    await self._end_machine(instance)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            instance.status_reason = _reason(error)
            if instance.machine is not None:
                await instance.machine.thaw()
            # A pause that fails leaves the instance as it was.
            self._run(instance, instance.expires_at)
            return
        instance.status, instance.expires_at = "PAUSED", None
        instance.updated = self._world.clock.now()
        self.keep(instance)

    async def _resume(self, instance: Instance, memory: bool) -> None:
        try:
            await self._pass(instance)
            if instance.machine is not None and not memory:
                await self.power.park(instance)
                await self._end_machine(instance)
            if instance.machine is not None:
                await instance.machine.thaw()
            else:
                seed = self.power.parking_of(instance)
                await self.power.on(instance, seed if seed.exists() else None)
                await asyncio.to_thread(remove_tree, seed)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._fail(instance, "RESUME_FAILED", error)
            return
        self._run(instance, None)

    async def _take_down(self, instance: Instance, before: asyncio.Task[None] | None, reason: str) -> None:
        await cancelled(before)
        try:
            await self._pass(instance)
        except StepFailed as failed:
            instance.status, instance.status_reason, instance.stop_reason = "STOP_FAILED", str(failed), "error"
            instance.updated = self._world.clock.now()
            self.keep(instance)
            return
        await self._end_machine(instance)
        instance.status, instance.stop_reason = "STOPPED", reason
        self._ended(instance)

    async def _pass(self, instance: Instance) -> None:
        pending = instance.pending
        if pending is not None:
            try:
                await pending.wait()
            finally:
                if instance.pending is pending:
                    instance.pending = None

    def _run(self, instance: Instance, due: float | None) -> None:
        now = self._world.clock.now()
        instance.status, instance.updated = "RUNNING", now
        if instance.timeout is not None:
            self._count_down(instance, due if due is not None else now + instance.timeout)
        if instance.machine is not None and instance.watcher is None:
            instance.watcher = self._world.spawn(self._watch(instance, instance.machine))
        self.keep(instance)

    async def _watch(self, instance: Instance, machine: Machine) -> None:
        await machine.wait_dead()
        if instance.machine is machine and not instance.ended and instance.status != "STOPPING":
            instance.watcher = None
            await self.die(instance, "the sandbox ended unexpectedly")

    def _count_down(self, instance: Instance, due: float) -> None:
        instance.expires_at = due
        if instance.alarm is not None:
            instance.alarm.cancel()
        instance.alarm = self._world.clock.schedule(due, lambda: self._expire(instance))

    def _expire(self, instance: Instance) -> None:
        instance.alarm = None
        if instance.status != "RUNNING":
            return
        if instance.lifecycle.auto_pause:
            self.pause(instance, memory=instance.lifecycle.auto_pause_memory)
        else:
            self.stop(instance, "timeout")

    def _still(self, instance: Instance) -> None:
        """Stop the countdown."""
        if instance.alarm is not None:
            instance.alarm.cancel()
            instance.alarm = None

    async def _fail(self, instance: Instance, status: str, error: Exception) -> None:
        if not isinstance(error, (StepFailed, NotReady, Refusal)):
            logger.error("instance %s could not be started", instance.instance_id, exc_info=error)
        await self._end_machine(instance)
        instance.status, instance.status_reason, instance.stop_reason = status, _reason(error), "error"
        self._ended(instance)

    async def _end_machine(self, instance: Instance) -> None:
        await self._unwatch(instance)
        await self.power.off(instance)

    async def _unwatch(self, instance: Instance) -> None:
        watcher, instance.watcher = instance.watcher, None
        await cancelled(watcher)

    def _ended(self, instance: Instance, at: float | None = None) -> None:
        """Note the end, and when to forget the instance."""
        self._still(instance)
        now = self._world.clock.now()
        instance.ended_at = now if at is None else at
        instance.updated = instance.ended_at
        assert instance.status in ENDED
        self.keep(instance)
        if self.power.parking_of(instance).exists():
            self._world.spawn(self.power.unpark(instance))
        instance.samples.clear()
        self._world.retention.add(instance.instance_id, instance.ended_at, lambda: self.forget(instance))


def _reason(error: Exception) -> str:
    if isinstance(error, Refusal):
        return error.message
    return str(error) or type(error).__name__
