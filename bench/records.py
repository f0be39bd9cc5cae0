"""An emulator whose instances are records alone, for measuring what lists thousands of them.

Ten thousand real sandboxes would measure the machine's memory. The control plane, its rules and its rates are the same.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

from ags_flows.emulator import Emulator


class Record:
    """A machine without processes."""

    code_app = None

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def envd_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse the request: the sandbox has no processes."""
        raise ConnectionRefusedError

    def connect(self, port: int) -> socket.socket:
        """Refuse."""
        raise ConnectionRefusedError

    async def stop(self) -> None:
        """End."""
        self._over.set()

    async def leave(self) -> None:
        """End the record: there are no processes to leave behind."""
        self._over.set()

    async def wait_dead(self) -> None:
        """Return when it was stopped."""
        await self._over.wait()

    def processes(self) -> list[dict[str, Any]]:
        """Return none."""
        return []


async def launch(plan: object) -> Any:
    """Return a machine immediately."""
    return Record()


def main(env_file: Path) -> None:
    """Serve until standard input ends; a line `limits` switches the rates of AGS on."""
    with Emulator(launch=launch) as emulator:
        exports = [f"export {name}={value}\n" for name, value in emulator.environment.items()]
        partial = env_file.with_suffix(".partial")
        partial.write_text("".join(exports))
        partial.replace(env_file)
        for line in sys.stdin:
            if line.strip() == "limits":
                emulator.limits(rates=True)
                print("on", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
