"""The emulated platform: one account, its regions, its clock, its faults."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any

from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.sandbox.outliving import Life, Warden, deadlines
from ags_flows.emulator.world.api_keys import ApiKeys
from ags_flows.emulator.world.client_tokens import ClientTokens
from ags_flows.emulator.world.clock import Clock
from ags_flows.emulator.world.faults import Faults
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.instances import Instances
from ags_flows.emulator.world.limits import Limits
from ags_flows.emulator.world.machine import Launch, Machine
from ags_flows.emulator.world.profile import Profile
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.region import Region
from ags_flows.emulator.world.retention import Retention
from ags_flows.emulator.world.settings import Settings
from ags_flows.emulator.world.store import Store
from ags_flows.emulator.world.transitions import Transitions

logger = logging.getLogger("ags_flows.emulator")

_REVIVAL = 30.0
"""How long the start of the emulator waits at most for sandboxes that are started again, in seconds."""


class World:
    """Everything that the emulator knows. It is used from one event loop's thread only.

    Args:
        settings: How it is set up.
        launch: Starts a machine; replaced in tests only.
    """

    def __init__(self, settings: Settings, launch: Launch = Machine.launch) -> None:
        """Take up what the state directory holds; `open` starts it."""
        self.settings = settings
        self.launch = launch
        self.store = Store(settings.directory / "records" if settings.keep else None)
        account = next(iter(self.store.all("account")), {})
        self.clock = Clock(float(account.get("offset", 0.0)))
        self.profile = Profile(settings.profile, settings.start)
        self.transitions = Transitions(self.clock)
        for step, how in self.profile.transitions().items():
            self.transitions.declare(step, how, baseline=True)
        self.retention = Retention(self.clock, 0.0 if self.profile.forgets_stopped else settings.retention)
        # Ids of the latest ones that E2B clients made: the response for them stays that of E2B.
        self.forgotten_of_e2b: deque[str] = deque(maxlen=10_000)
        self.faults = Faults()
        self.limits = Limits()
        self.api_keys = ApiKeys(self)
        self.client_tokens = ClientTokens(self.clock.now, self.store, self.profile.repeat)
        self.regions: dict[str, Region] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        # The id of this emulator in the notes of sandboxes that outlive it; None if they end with it.
        self.keeper = uuid.uuid4().hex if settings.keep else None
        self._warden: Warden | None = None

    async def open(self) -> None:
        """Restore what an earlier emulator left in the state directory, with its live sandboxes."""
        self._rescue()
        for document in self.store.all("api_keys"):
            self.api_keys.load(document)
        last = 0
        for kind in ("tools", "snapshots", "instances"):
            for document in self.store.all(kind):
                region = self.region(document["region"], build_in=False)
                last = max(last, int(document["number"]))
                getattr(region, kind).load(document)
        self._numbers = itertools.count(last + 1)
        for region in list(self.regions.values()):
            region.tools.build_in()
        self.region(self.settings.region)
        if self.keeper is not None:
            self._warden = await asyncio.to_thread(Warden, self.settings.directory, self.keeper)
        # A request for one of them before it is back would get the response that it is gone.
        starting = [each.task for each in self.all_instances() if each.task is not None]
        if starting:
            await asyncio.wait(starting, timeout=_REVIVAL)

    def region(self, name: str, *, build_in: bool = True) -> Region:
        """Return a region; it comes into being when it is first named.

        Raises:
            Refusal: ``UnsupportedRegion`` when it cannot be a region's name.
        """
        region = self.regions.get(name)
        if region is None:
            if not re.fullmatch(r"[a-z]{2,3}-[a-z]+(-[a-z0-9]+){0,3}", name, re.ASCII) or len(name) > 40:
                raise Refusal("UnsupportedRegion", f"The region {name[:40]!r} is not supported.")
            region = self.regions[name] = Region(self, name)
            if build_in:
                region.tools.build_in()
        return region

    def all_instances(self, region: str | None = None) -> Iterator[Instance]:
        """Iterate over the instances of one region or of all."""
        for each in list(self.regions.values()):
            if region in (None, each.name):
                yield from each.instances

    def find_instance(self, instance_id: str) -> Instance | None:
        """Return an instance of any region by its id, or None."""
        for region in self.regions.values():
            instance = region.instances.find(instance_id)
            if instance is not None:
                return instance
        return None

    def next_number(self) -> int:
        """Return a number that is larger than all before."""
        return next(self._numbers)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background until it ends or the world does; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def note(self) -> None:
        """Write down what belongs to no resource: how far the clock is ahead."""
        self.store.put("account", "account", {"offset": self.clock.offset})

    async def reset(self) -> None:
        """Make the account as new: no resources but the built-in tools, no faults, the present time."""
        await self._end_all(forget=True)
        self.regions.clear()
        for key in list(self.api_keys):
            self.api_keys.delete(key.key_id)
        self.client_tokens.clear()
        self.retention.clear()
        self.forgotten_of_e2b.clear()
        self.faults.clear()
        self.limits.change({"quotas": False, "rates": False, "instances": 10, "paused": 20, "tools": 100, "rate": None})
        self.limits.change({"api_keys": 10})
        self.transitions.reset()
        self.clock.reset()
        self.note()
        self.region(self.settings.region)

    async def close(self, *, leave: bool = False) -> None:
        """End everything; files are kept only if the settings require it.

        Args:
            leave: Whether sandboxes that can run on without an emulator do, for the next one to take over.
        """
        self.faults.clear()
        await self._end_all(forget=False, leave=leave)
        self.clock.close()
        if self._warden is not None:
            await asyncio.to_thread(self._warden.dismiss, any(self.all_instances()) and leave)
        if not self.settings.keep:
            try:
                await asyncio.to_thread(remove_tree, self.settings.directory)
            except RuntimeError:
                # The interpreter is ending and gives no more threads: the program did not stop the emulator.
                remove_tree(self.settings.directory)

    def _rescue(self) -> None:
        """Leave alone the machines that outlived a killed emulator; park the files of all others."""
        machines, parked = self.settings.directory / "machines", self.settings.directory / "parked"
        if not machines.is_dir():
            return
        parked.mkdir(exist_ok=True)
        known = {document["instance_id"] for document in self.store.all("instances")}
        due = deadlines(self.settings.directory)
        for machine in machines.iterdir():
            life = Life.read(machine)
            if life is not None:
                if life.lasts and due.get(machine.name, 0.0) > time.time():
                    continue
                life.end()
            files = machine / "root"
            if machine.name in known and files.is_dir():
                remove_tree(parked / machine.name)
                files.rename(parked / machine.name)
            remove_tree(machine)

    async def _end_all(self, *, forget: bool, leave: bool = False) -> None:
        pairs = [(region, instance) for region in self.regions.values() for instance in region.instances]
        if forget:
            for region, instance in pairs:
                region.instances.forget(instance)
        way = Instances.discard if forget else Instances.leave if leave else Instances.close
        ending = [way(region.instances, instance) for region, instance in pairs if not instance.ended]
        for outcome in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                logger.error("an instance did not end cleanly", exc_info=outcome)
        if forget:
            for region in self.regions.values():
                for snapshot in list(region.snapshots):
                    await region.snapshots.delete(snapshot.snapshot_id)
                for tool in list(region.tools):
                    self.store.drop("tools", tool.tool_id)
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a step of the emulator failed", exc_info=task.exception())
