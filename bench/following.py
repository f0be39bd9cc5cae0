"""What it costs to follow durable commands: much output, many concurrent commands, and long silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command, DurableCommand
from ags_flows.models import ExecResult
from ags_flows.run.holder import current_execution
from ags_flows.tasks import exec_command
from bench.figure import Figure
from bench.sandbox import running_sandbox
from bench.transfers import watched

SIZE = 1_000_000_000
AT_ONCE = 200
SILENCE = 60


def figures() -> Iterator[Figure]:
    """Follow 1 GB of output, 200 concurrent commands, and a command without output for a minute."""
    with running_sandbox() as (config, instance):
        exec_command.fn(instance, "seq 1000", config=config)
        line = "x" * 99
        command = f"yes {line} | head -c {SIZE}"
        # With a log, every byte is read. Without one, only those that the result has.
        done, growth = watched(lambda: exec_command.fn(instance, command, config=config))
        whole = isinstance(done, ExecResult) and done.stdout_size == SIZE
        speed = SIZE / 1e6 / done.seconds if isinstance(done, ExecResult) else 0.0
        told = "every byte" if whole else "NOT WHOLE"
        yield Figure("following 1 GB of output: growth of memory", growth / 1e6, "MB", 64.0, detail=told)
        yield Figure("following 1 GB of output: speed", speed if whole else 0.0, "MB/s", 30.0, True)
        exec_command.fn(instance, "rm -rf ~/.ags_flows/*/journal/*", config=config, durable=False)

        plane = open_plane(config.connection(), instance.id).plane
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            right = sum(pool.map(lambda number: _counts(plane, number), range(AT_ONCE)))
        seconds = time.monotonic() - began
        yield Figure(f"{AT_ONCE} concurrent commands: right ones", right, "", AT_ONCE, True, f"{seconds:.0f} s")

        calls: list[float] = []
        counted = _Counted(plane, calls)
        began = time.monotonic()
        _run(counted, f"sleep {SILENCE}")  # type: ignore[arg-type]
        early = sum(1 for moment in calls if moment - began < 20)
        late = [moment for moment in calls if 30 < moment - began < SILENCE - 2]
        yield Figure("waiting for a command: calls a second at first", early / 20, "/s", 1.0)
        yield Figure("waiting for a command: calls a second after 30 s", len(late) / (SILENCE - 32), "/s", 0.25)


def _counts(plane: DataPlane, number: int) -> bool:
    """Return True if a command of several seconds came back whole."""
    done = _run(plane, f"for i in $(seq 5); do echo {number} $i; sleep 1; done; exit 7")
    return done.exit_code == 7 and done.stdout == "".join(f"{number} {i}\n" for i in range(1, 6))


def _run(plane: DataPlane, text: str) -> ExecResult:
    """Run a durable command as a step that no other call has."""
    command = Command(text)
    return DurableCommand(plane, command).start(current_execution().step("bench", command.does())).wait()


class _Counted:
    """A data plane that notes when it was asked."""

    def __init__(self, plane: DataPlane, calls: list[float]) -> None:
        self._plane = plane
        self._calls = calls
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        found = getattr(self._plane, name)
        if not callable(found):
            return found

        def call(*arguments: object, **more: object) -> object:
            with self._lock:
                self._calls.append(time.monotonic())
            return found(*arguments, **more)

        return call
