"""The description of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ags_flows.emulator.reach import EVERYWHERE, Reach


@dataclass(frozen=True)
class Bind:
    """A directory of the host that appears in the sandbox."""

    source: Path
    target: str
    readonly: bool = False


@dataclass(frozen=True)
class SandboxSpec:
    """One sandbox.

    Attributes:
        sandbox_id: Its id.
        directory: A directory of the host that belongs to this sandbox alone; it is removed at the end.
        network: Which other machines it may reach, through the emulator's proxy.
        host_ports: Ports of this machine that it finds on its own loopback interface, unless it has no network.
        storage_bytes: The size of its file system, None for that of the host.
        memory_bytes: A limit for its memory, where cgroups allow one.
        binds: Directories of the host that appear in it.
        hostname: What it calls itself.
        seed: A saved file system to start from.
        image: Files that a fresh file system has beside those of every sandbox.
        keeper: The emulator that keeps it, for a sandbox that outlives this process; None ends it with this process.
    """

    sandbox_id: str
    directory: Path
    network: Reach = EVERYWHERE
    host_ports: tuple[int, ...] = ()
    storage_bytes: int | None = None
    memory_bytes: int | None = None
    binds: tuple[Bind, ...] = ()
    hostname: str = "sandbox"
    seed: Path | None = None
    image: Path | None = None
    keeper: str | None = None


@dataclass(frozen=True)
class Usage:
    """What a sandbox uses at a moment; sizes in bytes."""

    cpu_percent: float
    memory_used: int
    memory_total: int
    disk_used: int
    disk_total: int
    processes: int
