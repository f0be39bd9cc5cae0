"""What a sandbox uses of memory, disk and processes, and its limits."""

import time

import pytest

from ags_flows.emulator.sandbox import cgroup, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")


def test_usage_and_processes_are_reported(started):
    sandbox = started()
    process = started.run(sandbox.spawn(["/bin/bash", "-c", "while :; do :; done"]))
    sandbox.usage()
    time.sleep(0.3)
    usage = sandbox.usage()
    listed = dict(sandbox.processes())

    assert usage.cpu_percent > 10
    assert 0 < usage.memory_used < usage.memory_total
    assert 0 < usage.disk_used < usage.disk_total
    assert listed[process.pid][0] == "/bin/bash"
    process.release()


def test_a_disk_of_a_size_can_be_full_and_empty_again(started):
    sandbox = started(storage_bytes=16 << 20)
    sandbox.fill_disk(True)
    full = started.shell(sandbox, "echo x > ~/x && echo y")
    sandbox.fill_disk(False)

    assert "No space left" in full[1]
    assert started.shell(sandbox, "head -c 1000000 /dev/zero > ~/x && echo y")[1] == "y\n"
    assert started.shell(sandbox, "head -c 17000000 /dev/zero > ~/x")[0] != 0


@pytest.mark.skipif(not cgroup.limits("memory"), reason="no control groups that limit memory here")
def test_what_takes_more_memory_than_a_sandbox_has_is_killed(started):
    small, other = started(memory_bytes=64 << 20), started()
    take = "python3 -c 'print(len(bytearray(200 << 20)))'; echo $?"

    assert "137" in started.shell(small, take)[1].splitlines()
    assert started.shell(other, take)[1] == f"{200 << 20}\n0\n"


@pytest.mark.skipif(not cgroup.limits("pids"), reason="no control groups that limit processes here")
def test_a_sandbox_cannot_fill_the_machine_with_processes(started, monkeypatch):
    monkeypatch.setattr(cgroup, "MOST_PROCESSES", 60)
    wild, other = started(), started()
    fork = """python3 -c '
import os, signal
for number in range(200):
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        print(number, flush=True)
        os.killpg(0, signal.SIGTERM)
'"""

    assert 0 < int(started.shell(wild, f"setsid -w {fork}")[1].split()[0]) < 60
    assert started.shell(other, "echo goes on")[1] == "goes on\n"
