"""One region: its tools, instances, snapshots and cached images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ags_flows.emulator.world.instances import Instances
from ags_flows.emulator.world.precache import PrecachedImages
from ags_flows.emulator.world.snapshots import Snapshots
from ags_flows.emulator.world.tools import Tools

if TYPE_CHECKING:
    from ags_flows.emulator.world.world import World


class Region:
    """The resources of one region."""

    def __init__(self, world: World, name: str) -> None:
        """Start empty; `Tools.build_in` adds the tools that exist from the start."""
        self.world = world
        self.name = name
        self.tools = Tools(self)
        self.instances = Instances(self)
        self.snapshots = Snapshots(self)
        self.precached = PrecachedImages(self)
