"""Plain directories, for machines without namespaces."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from ags_flows.emulator.sandbox import Bind
from ags_flows.emulator.sandbox.plain import PlainSandbox


def test_commands_begin_in_a_separate_home(started):
    sandbox = started(PlainSandbox)
    home = str(sandbox.spec.directory / "root" / "home" / "user")

    assert started.shell(sandbox, "echo $HOME; pwd; echo $USER; env | grep -c ^HOSTS_")[1].split() == [
        home,
        home,
        "user",
        "0",
    ]
    assert started.shell(sandbox, "pwd", cwd="/tmp")[1] == str(sandbox.spec.directory / "root" / "tmp") + "\n"


def test_files_are_those_of_the_directory(started):
    sandbox = started(PlainSandbox)
    descriptor = sandbox.files.create("/home/user/a", sandbox.owner("user"))
    os.write(descriptor, b"text\n")
    os.close(descriptor)

    assert started.shell(sandbox, "cat a")[1] == "text\n"
    os.symlink("/etc/passwd", sandbox.spec.directory / "root/tmp/link")
    descriptor = sandbox.files.open("/tmp/link")
    assert b"/home/user" in os.read(descriptor, 1000)
    os.close(descriptor)


def test_many_callers_make_the_same_directories(started):
    sandbox = started(PlainSandbox)
    owner, callers = sandbox.owner("user"), 8
    together = threading.Barrier(callers)

    def make(_):
        for number in range(50):
            together.wait(timeout=30)
            sandbox.files.make_directories(f"/home/user/{number}/deep/er", owner)

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(make, range(callers)))
    assert len(sandbox.files.names("/home/user")) >= 50


def test_stopping_takes_all_processes_and_files(started):
    sandbox = started(PlainSandbox)
    started.shell(sandbox, "setsid sleep 1000.5 >/dev/null 2>&1 & setsid setsid sleep 1001.5 >/dev/null 2>&1 &")
    commands = []
    for _ in range(200):
        commands = [command for _, command in sandbox.processes()]
        if sorted(commands) == [["sleep", "1000.5"], ["sleep", "1001.5"]]:
            break
        time.sleep(0.02)
    assert sorted(commands) == [["sleep", "1000.5"], ["sleep", "1001.5"]]
    started.run(sandbox.stop())
    started.run(sandbox.wait_dead())

    assert not sandbox.spec.directory.exists()
    assert [
        one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] in (["sleep", "1000"], ["sleep", "1001"])
    ] == []


def test_it_is_saved_frozen_and_connected_to(started, tmp_path):
    sandbox = started(PlainSandbox)
    started.shell(sandbox, "echo kept > ~/kept")
    started.run(sandbox.save(tmp_path / "saved"))
    second = started(PlainSandbox, seed=tmp_path / "saved")
    assert started.shell(second, "cat ~/kept")[1] == "kept\n"

    async def frozen():
        process = await second.spawn(["/bin/bash", "-c", "sleep 0.2; echo x"])
        await second.freeze()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.stdout.read(), 0.5)
        await second.thaw()
        await process.wait()
        process.release()

    started.run(frozen())
    with second.listen(0) as listener, second.connect(listener.getsockname()[1]):
        pass


def test_a_mount_is_refused(started, tmp_path):
    with pytest.raises(OSError, match="/mnt/x"):
        started(PlainSandbox, binds=(Bind(tmp_path, "/mnt/x"),))
