"""An emulator of AGS (and of E2B's API over it) on one machine, with real processes.

For development, tests and demonstrations; it is not a security boundary and listens on loopback only::

    from ags_flows.emulator import Emulator

    with Emulator() as emulator:
        print(emulator.url, emulator.environment)

It shares no code with the client side of this package: both would share one mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ags_flows.emulator.process import serve
    from ags_flows.emulator.server import Emulator

__all__ = ["Emulator", "serve"]


def __getattr__(name: str) -> Any:
    """Import what is asked for on its first use: the server's packages take a while."""
    if name == "Emulator":
        from ags_flows.emulator.server import Emulator

        return Emulator
    if name == "serve":
        from ags_flows.emulator.process import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
