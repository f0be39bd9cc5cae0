"""Sandboxes in namespaces: what is their own, what is shared, how they begin and end."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ags_flows.emulator.sandbox import Bind, cgroup, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")
needs_root = pytest.mark.skipif(not isolation().root, reason="needs root")


def test_every_sandbox_has_separate_processes_names_and_ports(started):
    one, two = started(), started()
    serve = "python3 -m http.server 8000 --bind 127.0.0.1 -d /tmp >/dev/null 2>&1 & echo $(hostname) > /tmp/index.html"
    for sandbox in (one, two):
        started.shell(sandbox, serve)
    pages = []
    for sandbox in (one, two):
        for _ in range(100):
            try:
                connection = sandbox.connect(8000)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            pages.append(b"".join(iter(lambda c=connection: c.recv(4096), b"")).split()[-1])

    assert pages == [b"s0", b"s2"]
    with pytest.raises(ConnectionRefusedError):
        one.connect(8001)


def test_the_host_can_listen_inside(started):
    sandbox = started()
    with sandbox.listen(7777) as listener:
        code, out = started.shell(sandbox, "exec 3<>/dev/tcp/127.0.0.1/7777 && echo hello >&3 && echo sent")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"hello\n"
        assert (code, out) == (0, "sent\n")
        with pytest.raises(OSError):
            sandbox.listen(7777)


def test_nothing_of_the_host_is_seen_but_its_programs(started):
    sandbox = started()
    seen = started.shell(
        sandbox, "ls / /home /root; mount | cut -d' ' -f1,3; ls /tmp; cat /etc/passwd; ps aux", user="root"
    )[1]

    assert str(Path.home()) == "/root" or Path.home().name not in seen
    assert str(sandbox.spec.directory) not in seen
    assert started.shell(sandbox, "ls -A /home")[1] == "user\n"
    assert "nobody" in seen


def test_the_hosts_programs_cannot_be_changed(started):
    sandbox = started()
    code, out = started.shell(
        sandbox, "touch /usr/bin/mine; mount -o remount,rw /usr; touch /usr/bin/mine", user="root"
    )

    assert code != 0
    assert "Read-only file system" in out
    assert not Path("/usr/bin/mine").exists()


def test_what_is_read_only_stays_so(started):
    sandbox = started()
    remount = "for each in / /usr /etc/ssl /proc/sys; do mount -o remount,rw,bind $each && echo CHANGED; done"

    assert "CHANGED" not in started.shell(sandbox, f"{remount}; umount /usr && echo CHANGED", user="root")[1]


@pytest.mark.parametrize("tool", ["bash", "tar", "python3", "git", "curl"])
def test_the_usual_programs_are_there(started, tool):
    import shutil

    if tool != "python3" and shutil.which(tool) is None:
        pytest.skip("the host has none")
    assert started.shell(started(), f"{tool} --version")[0] == 0


@needs_root
def test_users_are_real(started):
    sandbox = started()

    assert started.shell(sandbox, "id -un; id -u; touch /root/x", user="user")[1].startswith("user\n1000\n")
    assert started.shell(sandbox, "id -un; id -u", user="root")[1] == "root\n0\n"
    assert started.shell(sandbox, "touch ~/mine && stat -c %U ~/mine", user="user")[1] == "user\n"
    assert started.shell(sandbox, "cat /root/.bashrc")[0] != 0
    with pytest.raises(KeyError):
        started.run(sandbox.spawn(["true"], user="stranger"))


@needs_root
def test_root_inside_has_no_power_over_the_host(started):
    sandbox = started()
    settings = ("kernel/core_pattern", "kernel/panic", "vm/swappiness")
    before = [Path("/proc/sys", name).read_text() for name in settings]
    code, out = started.shell(
        sandbox,
        "date -s 2001-01-01; mknod /tmp/disk b 8 0; chroot /proc/1/root true; mount -t tmpfs none /mnt;"
        f"for name in {' '.join(settings)}; do cat /proc/sys/$name > /proc/sys/$name && echo WRITTEN; done;"
        "umount /proc/sys; mount -o remount,rw /proc/sys;"
        "unshare -Urmpf --mount-proc sh -c 'cat /proc/sys/kernel/panic > /proc/sys/kernel/panic && echo WRITTEN';"
        "head -c 1 /proc/kmsg /proc/kcore && echo READ; echo b > /proc/sysrq-trigger && echo WRITTEN; echo done",
        user="root",
    )

    assert out.count("done") == 1
    assert "WRITTEN" not in out and "READ" not in out
    assert [Path("/proc/sys", name).read_text() for name in settings] == before
    assert time.time() > psutil.boot_time()
    for word in ("date: cannot set", "mknod: ", "mount: "):
        assert word in out


def test_directories_of_the_host_appear_where_they_are_bound(started, tmp_path):
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "data" / "in").write_text("given")
    binds = (Bind(tmp_path / "data", "/mnt/rw"), Bind(tmp_path / "data", "/deep/in/ro", readonly=True))
    sandbox = started(binds=binds)
    code, out = started.shell(sandbox, "cat /deep/in/ro/in; echo out > /mnt/rw/out; touch /deep/in/ro/x")

    assert code != 0
    assert out.startswith("given")
    assert (tmp_path / "data" / "out").read_text() == "out\n"
    assert sandbox.files.names("/mnt/rw") == ["in", "out"]


def test_what_was_saved_begins_another_sandbox(started, tmp_path):
    first = started()
    started.shell(
        first, "mkdir ~/kept; echo x > ~/kept/a; ln -s a ~/kept/link; chmod 640 ~/kept/a; echo r > ~/root-owned"
    )
    started.run(first.save(tmp_path / "saved"))
    second = started(seed=tmp_path / "saved")
    third = started(seed=tmp_path / "saved", storage_bytes=64 << 20)

    for sandbox in (second, third):
        assert started.shell(sandbox, "cat ~/kept/link; stat -c %U:%a ~/kept/a; id -un")[1] == "x\nuser:640\nuser\n"
    started.shell(second, "echo changed > ~/kept/a")
    assert started.shell(first, "cat ~/kept/a")[1] == "x\n"


@needs_root
def test_programs_of_this_process_have_no_power_over_the_host_either_once_they_are_inside(started):
    if isolation().users is None:
        pytest.skip("no user namespaces here")
    sandbox = started()
    attempts = (
        "mount -o remount,rw,bind /proc/sys",
        "umount /proc/sys",
        "mount -t tmpfs none /mnt",
        "mount --bind / /mnt",
        "unshare -Um umount /proc/sys",
        "unshare -mpf --mount-proc true",
        "mknod /tmp/disk b 8 0",
        "cp /proc/sys/kernel/panic /proc/sys/kernel/panic",
    )
    # A sandbox's own loader runs in them, before they have given up their rights: all of them, as here.
    enter = sandbox._enter("root")
    enter = enter[: enter.index("--") + 1]
    for attempt in attempts:
        done = subprocess.run([*enter, "sh", "-c", attempt], capture_output=True, text=True)
        assert done.returncode != 0, attempt
    rights = subprocess.run([*enter, "cat", "/proc/self/uid_map"], capture_output=True, text=True)
    assert rights.stdout.split() == ["0", "0", "4294967295"]
    assert os.readlink(f"/proc/{sandbox._init}/ns/user") != os.readlink("/proc/self/ns/user")


@needs_root
def test_root_inside_listens_on_low_ports(started):
    serve = 'python3 -c \'import socket; socket.create_server(("", 80)); print("listens")\''

    assert started.shell(started(), serve, user="root")[1] == "listens\n"


@needs_root
def test_links_in_a_saved_file_system_do_not_lead_mounts_to_the_host(started, tmp_path):
    first = started()
    outside = tmp_path / "outside"
    outside.mkdir()
    script = f"cd /; for name in etc mnt run; do mv $name was-$name; ln -s /oldroot{outside} $name; done; echo done"
    assert started.shell(first, script, user="root")[1] == "done\n"
    started.run(first.save(tmp_path / "saved"))
    (tmp_path / "data").mkdir()
    started(seed=tmp_path / "saved", binds=(Bind(tmp_path / "data", "/mnt/data"),))

    assert list(outside.iterdir()) == []


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


def test_a_port_of_the_host_is_not_that_of_a_sandbox(started):
    sandbox = started()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _ = started.shell(sandbox, f"exec 3<>/dev/tcp/127.0.0.1/{port}")

    assert code != 0


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
