"""What a sandbox has used: one sample for each request, at most one per second."""

from __future__ import annotations

from typing import Any

from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import detail, milli_cpus
from ags_flows.emulator.world.instance import Instance

Json = dict[str, Any]


async def samples(instance: Instance, now: float) -> list[Json]:
    """Return a running instance's samples as E2B's API shows them, oldest first, the last from now."""
    kept = instance.samples
    if instance.machine is not None and (not kept or now - kept[-1]["timestampUnix"] >= 1):
        usage = await instance.machine.usage()
        resources = (detail(instance.custom) or {}).get("Resources") or {}
        kept.append(
            {
                "timestamp": iso(now),
                "timestampUnix": int(now),
                "cpuCount": max(1, milli_cpus(resources.get("CPU") or "2") // 1000),
                "cpuUsedPct": round(usage["cpu_percent"], 2),
                "memUsed": int(usage["memory_used"]),
                "memTotal": int(usage["memory_total"]),
                "memCache": 0,
                "diskUsed": int(usage["disk_used"]),
                "diskTotal": int(usage["disk_total"]),
            }
        )
    return list(kept)
