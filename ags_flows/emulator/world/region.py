"""One region: its tools, instances, snapshots and cached images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .instances import Instances
from .precache import PrecachedImages
from .snapshots import Snapshots
from .tools import Tools

if TYPE_CHECKING:
    from .world import World


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
