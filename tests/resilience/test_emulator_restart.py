"""The emulator is killed or stopped while sandboxes run: they go on, and end in time when it does not come back."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox

from ags_flows import AGSConfig
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command, DurableCommand
from ags_flows.emulator.sandbox import isolation
from ags_flows.emulator.sandbox.outliving import Life
from ags_flows.ownership import shared_step
from ags_flows.tasks import exec_command, start_instance, stop_instance, wait_instance_running

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="plain directories do not outlive their emulator")

KEY = "5" * 32
LINES = 25
COMMAND = f"echo ran >> /home/user/counter; for i in $(seq {LINES}); do echo line $i; sleep 0.2; done; exit 7"


class Killed:
    """An emulator with state that can be killed and started again on the same port."""

    def __init__(self, directory):
        self.state, self.env_file, self.said = directory / "state", directory / "env", directory / "said"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = None

    def start(self):
        self.env_file.unlink(missing_ok=True)
        code = "import sys; from ags_flows.emulator import serve; "
        code += "sys.exit(serve(port=int(sys.argv[1]), state=sys.argv[2], env_file=sys.argv[3], quiet=True))"
        arguments = [str(self.port), str(self.state), str(self.env_file)]
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], stdout=said, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 60
        while not self.env_file.exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        lines = self.env_file.read_text().splitlines()
        told = self.told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        return AGSConfig(
            secret_id=told["TENCENTCLOUD_SECRET_ID"],
            secret_key=told["TENCENTCLOUD_SECRET_KEY"],
            http_endpoint=told["AGS_ENDPOINT"],
        )

    def end(self, number):
        os.kill(self.process.pid, number)
        assert self.process.wait(30) == (0 if number == signal.SIGTERM else -number)

    def life(self, instance):
        return Life.read(self.state / "machines" / instance.id)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0


@pytest.fixture
def emulator(tmp_path):
    emulator = Killed(tmp_path)
    yield emulator
    emulator.close()


def gone(life, within):
    deadline = time.monotonic() + within
    while life.lasts:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_durable_command_runs_through_a_restart_of_the_emulator(emulator, number):
    config = emulator.start()
    instance = wait_instance_running.fn(start_instance.fn("base", timeout="10m", config=config), config=config)
    first = threading.Thread(target=_attempt, args=(instance, config), daemon=True)
    first.start()
    deadline = time.monotonic() + 30
    while b"ran" not in _peek(emulator, instance):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = emulator.life(instance)
    emulator.end(number)
    told = emulator.said.read_text()
    assert ("Stopping: 1 running sandbox goes on, at most until 2" in told) == (number == signal.SIGTERM)
    assert before.lasts
    config = emulator.start()
    result = _run(instance, config)
    assert result.exit_code == 7
    assert result.stdout == "".join(f"line {number}\n" for number in range(1, LINES + 1))
    after = emulator.life(instance)
    assert (after.init, after.init_start, after.proxy) == (before.init, before.init_start, before.proxy)
    assert after.keeper != before.keeper
    counted = exec_command.fn(instance, "cat counter", durable=False, config=config)
    assert counted.stdout == "ran\n"
    stop_instance.fn(instance, config=config)
    assert gone(before, 20)
    first.join(60)
    emulator.close()
    assert list((emulator.state / "machines").iterdir()) == []


def test_what_writes_all_the_time_goes_on_through_a_restart_of_the_emulator(emulator):
    config = emulator.start()
    instance = wait_instance_running.fn(start_instance.fn("base", timeout="10m", config=config), config=config)
    chatter = "while head -c 20000 /dev/zero; do echo >> beats; sleep 0.02; done"
    client = Sandbox.connect(
        instance.id,
        api_key=emulator.told["E2B_API_KEY"],
        api_url=emulator.told["E2B_API_URL"],
        sandbox_url=emulator.told["E2B_SANDBOX_URL"],
    )
    client.commands.run(chatter, background=True, timeout=0)
    beats = emulator.state / "machines" / instance.id / "root" / "home" / "user" / "beats"

    def beaten(more):
        wanted, deadline = (beats.stat().st_size if beats.exists() else 0) + more, time.monotonic() + 30
        while not beats.exists() or beats.stat().st_size < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    beaten(5)
    emulator.end(signal.SIGKILL)
    time.sleep(0.5)
    config = emulator.start()
    # More than a pipe holds: the next emulator reads it.
    beaten(50)
    stop_instance.fn(instance, config=config)


def _run(instance, config):
    plane = open_plane(config.connection(), instance.id).plane
    return DurableCommand(plane, Command(COMMAND)).start(shared_step(KEY)).wait()


def _attempt(instance, config):
    try:
        _run(instance, config)
    except Exception:
        # What a process meets whose emulator goes away; that the second attempt ends well is what counts.
        return


def _peek(emulator, instance):
    counter = emulator.state / "machines" / instance.id / "root" / "home" / "user" / "counter"
    return counter.read_bytes() if counter.exists() else b""


def test_without_an_emulator_a_sandbox_ends_at_its_timeout_or_with_its_directory(emulator):
    config = emulator.start()
    short, long = (start_instance.fn("base", timeout=timeout, config=config) for timeout in ("30s", "1h"))
    for each in (short, long):
        wait_instance_running.fn(each, config=config)
    lives = [emulator.life(each) for each in (short, long)]
    # By its clock most of the short one's time is over.
    httpx.post(f"{config.http_endpoint}/_emulator/clock", json={"advance": 24}).raise_for_status()
    emulator.end(signal.SIGKILL)
    time.sleep(1.5)
    assert [each.lasts for each in lives] == [True, True]
    assert gone(lives[0], 60)
    assert lives[1].lasts
    shutil.rmtree(emulator.state)
    assert gone(lives[1], 20)


def test_sandboxes_that_were_just_being_made_are_ended_with_the_emulator(emulator):
    config = emulator.start()
    instances = [start_instance.fn("base", timeout="10m", config=config) for _ in range(8)]
    emulator.end(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while left := [pid for each in instances if emulator.life(each) is None for pid in _processes_of(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    shutil.rmtree(emulator.state)
    while any(map(_processes_of, instances)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _processes_of(instance):
    """Return the processes on the host that were made for a sandbox."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            given = path.read_bytes().split(b"\0")
            if any(each.startswith(b"AGS_FLOWS_SANDBOX=") and each.endswith(instance.id.encode()) for each in given):
                found.append(int(path.parent.name))
    return found
