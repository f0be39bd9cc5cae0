"""What programs in a sandbox may do: as a user, as root inside, and nothing to the host."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from ags_flows.emulator.sandbox import Bind, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")
needs_root = pytest.mark.skipif(not isolation().root, reason="needs root")


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
