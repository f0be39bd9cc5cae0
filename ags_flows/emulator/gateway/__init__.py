"""The gateway: any port of any sandbox, by HTTP and WebSocket."""

from ags_flows.emulator.gateway.faults import StreamFaults
from ags_flows.emulator.gateway.gateway import Gateway

__all__ = ["Gateway", "StreamFaults"]
