"""The gateway: any port of any sandbox, by HTTP and WebSocket."""

from .faults import StreamFaults
from .gateway import Gateway

__all__ = ["Gateway", "StreamFaults"]
