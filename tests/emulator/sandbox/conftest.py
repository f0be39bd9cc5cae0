import asyncio
import glob
import os
from pathlib import Path

import psutil
import pytest

from ags_flows.emulator.sandbox import Sandbox, SandboxSpec


class Started:
    """Starts sandboxes for a test, on its own loop."""

    def __init__(self, directory):
        self.directory = directory
        self.loop = asyncio.new_event_loop()
        self.sandboxes = []

    def __call__(self, kind=Sandbox, **spec):
        return self.run(self.start(kind, **spec))

    async def start(self, kind=Sandbox, **spec):
        name = f"s{len(self.sandboxes)}"
        directory = self.directory / name
        self.sandboxes.append(None)
        directory.mkdir()
        sandbox = await kind.start(SandboxSpec(sandbox_id=name, directory=directory, hostname=name, **spec))
        self.sandboxes.append(sandbox)
        return sandbox

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def command(self, sandbox, script, **options):
        """Return exit code and output of a script."""
        process = await sandbox.spawn(["/bin/bash", "-c", script], **options)
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        code = await process.wait()
        process.release()
        return code, (out + err).decode()

    def shell(self, sandbox, script, **options):
        return self.run(self.command(sandbox, script, **options))

    def close(self):
        for sandbox in self.sandboxes:
            if sandbox is not None:
                self.run(sandbox.stop())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Left:
    """The resources that this process acquired after the start of the test: emulators of other tests may live in it."""

    def __init__(self):
        self.before = self._now()

    def new(self):
        return [now - before for now, before in zip(self._now(), self.before, strict=True)]

    def _now(self):
        return (
            set(Path("/proc/self/mountinfo").read_text().splitlines()),
            set(psutil.Process().children(recursive=True)),
            # Unlike a path, it passes over groups that another process removes.
            set(glob.glob(f"/sys/fs/cgroup/**/ags-flows-{os.getpid()}-*", recursive=True)),
        )


@pytest.fixture
def left():
    return Left()


@pytest.fixture
def started(tmp_path):
    started = Started(tmp_path)
    yield started
    started.close()
