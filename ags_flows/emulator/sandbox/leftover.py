"""Output of processes that outlive their emulator.

They must be able to write while nothing reads their output, and to go on later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

PIECE = 1 << 16


def with_own_reader(descriptor: int) -> int:
    """Return a descriptor in place of a pipe's end to write to; the one given is left open.

    The holder of this descriptor can read the pipe too, so that the pipe always has a reader. When the emulator has
    ended, a process that writes is not killed by a signal. It may write as much as the pipe holds, and then waits for
    the next emulator.
    """
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)


class Leftover:
    """Reads and drops the output of processes that another emulator started: no client is connected to them."""

    def __init__(self, pids: Iterable[int]) -> None:
        """Read from now on, on the running loop.

        Args:
            pids: The processes' ids on the host.
        """
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, int] = {}
        for pid in pids:
            for number in (1, 2):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    self._take(Path(f"/proc/{pid}/fd/{number}"), Path(f"/proc/{pid}/fdinfo/{number}"))

    def close(self) -> None:
        """Stop reading."""
        for descriptor in list(self._pipes.values()):
            self._drop(descriptor)

    def _take(self, place: Path, info: Path) -> None:
        what = place.stat()
        flags = next(line.split()[1] for line in info.read_text().splitlines() if line.startswith("flags:"))
        # Those between two programs inside have one end only.
        own = stat.S_ISFIFO(what.st_mode) and int(flags, 8) & os.O_ACCMODE == os.O_RDWR
        if own and what.st_ino not in self._pipes:
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pipes[what.st_ino] = descriptor
            self._loop.add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            if os.read(descriptor, PIECE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._pipes = {number: each for number, each in self._pipes.items() if each != descriptor}
