"""How sandboxes and their processes start, freeze and end, and what is left of them."""

import asyncio
import os
import resource
import signal
import subprocess
import sys

import psutil
import pytest

from ags_flows.emulator.sandbox import Bind, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")


def test_frozen_processes_stand_still_and_go_on(started):
    sandbox = started()

    async def scenario():
        process = await sandbox.spawn(["/bin/bash", "-c", "(while :; do echo x; sleep 0.02; done) & wait"])
        await process.stdout.read(10)
        await sandbox.freeze()
        await asyncio.sleep(0.1)
        while True:
            try:
                await asyncio.wait_for(process.stdout.read(65536), 0.2)
            except asyncio.TimeoutError:
                break
        await asyncio.sleep(0.2)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.stdout.read(1), 0.2)
        await sandbox.thaw()
        assert await asyncio.wait_for(process.stdout.read(2), 5) == b"x\n"
        await sandbox.freeze()
        process.release()

    started.run(scenario())
    started.run(sandbox.stop())
    assert not sandbox.spec.directory.exists()


def test_a_job_that_was_stopped_before_stays_so_after_thawing(started):
    sandbox = started()

    async def scenario():
        stopped = await sandbox.spawn(["/bin/bash", "-c", "kill -STOP $$; exit 3"])
        await asyncio.sleep(0.1)
        await sandbox.freeze()
        await sandbox.thaw()
        await asyncio.sleep(0.1)
        assert stopped.returncode is None
        again = await sandbox.spawn(["/bin/bash", "-c", f"kill -CONT {stopped.pid}"])
        assert await again.wait() == 0
        assert await asyncio.wait_for(stopped.wait(), 5) == 3
        for process in (stopped, again):
            process.release()

    async def killed():
        process = await sandbox.spawn(["/bin/bash", "-c", "kill -STOP $$; exit 3"])
        await asyncio.sleep(0.1)
        assert process.signal(signal.SIGKILL)
        assert await asyncio.wait_for(process.wait(), 5) == -9
        process.release()

    started.run(killed())

    started.run(scenario())


def test_the_end_of_its_first_process_is_noticed(started):
    sandbox = started()
    os.kill(sandbox._init, 9)
    started.run(sandbox.wait_dead())

    assert not sandbox.alive
    with pytest.raises(OSError):
        started.run(sandbox.spawn(["true"]))
    with pytest.raises(ConnectionRefusedError):
        sandbox.connect(80)


def test_its_keeper_does_not_go_with_other_sleepers(started):
    sandbox = started()
    started.shell(sandbox, "pkill sleep; killall sleep; true", user="root")

    assert sandbox.alive


def test_hundreds_come_and_go_and_nothing_is_left(started, left, tmp_path):
    async def wave():
        sandboxes = await asyncio.gather(*[started.start() for _ in range(15)])
        done = await asyncio.gather(
            *[started.command(one, "echo x > ~/x; sleep 50 >/dev/null 2>&1 & echo y") for one in sandboxes]
        )
        assert [code for code, _ in done] == [0] * 15
        await asyncio.gather(*[one.stop() for one in sandboxes])
        started.sandboxes.clear()

    started.run(wave())
    files = psutil.Process().num_fds()
    for _ in range(13):
        started.run(wave())

    assert left.new() == [set(), set(), set()]
    assert psutil.Process().num_fds() <= files
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_fails_leaves_nothing(started, left, tmp_path):
    with pytest.raises(OSError):
        started(binds=(Bind(tmp_path / "missing", "/mnt/x"),))

    assert not (tmp_path / "s0").exists()
    assert left.new() == [set(), set(), set()]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_sandboxes_die_with_the_process_that_made_them(tmp_path, frozen, groups):
    script = f"""
import asyncio, os, sys
from pathlib import Path
from ags_flows.emulator.sandbox import Sandbox, SandboxSpec, cgroup
if not {groups}:
    cgroup.own_group = lambda: None
async def main():
    sandbox = await Sandbox.start(SandboxSpec(sandbox_id="x", directory=Path({str(tmp_path)!r}) / "x"))
    await sandbox.spawn(["sleep", "1000"])
    if {frozen}:
        await sandbox.freeze()
        await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(family, timeout=5)

    assert len(family) >= 5
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_a_process_that_cannot_be_started_leaves_nothing(started, left):
    sandbox = started()
    started.shell(sandbox, "true")
    me = psutil.Process()
    before = me.num_fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(1, 16):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
        try:
            code, _ = started.shell(sandbox, "echo x", stdin="pipe")
        except OSError:
            continue
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    started.run(asyncio.sleep(0.1))

    # Fewer, if the garbage of other tests was collected.
    assert me.num_fds() <= before
    assert sorted(child.name() for child in left.new()[1]) == ["bwrap", "bwrap", "init"]


def test_a_start_that_is_given_up_leaves_nothing(started, left):
    sandbox = started()
    me = psutil.Process()
    before = me.num_fds()

    async def give_up():
        for delay in (0, 0.0005, 0.001, 0.002, 0.004):
            task = asyncio.ensure_future(sandbox.spawn(["sleep", "100"], stdin="pipe"))
            await asyncio.sleep(delay)
            task.cancel()
            try:
                (await task).release()
            except asyncio.CancelledError:
                pass
        await sandbox.stop()
        await asyncio.sleep(0.1)

    started.run(give_up())
    assert left.new() == [set(), set(), set()]
    assert me.num_fds() < before
