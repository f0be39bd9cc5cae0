"""What is separate in each sandbox, and what it shares with the host."""

import socket
import time
from pathlib import Path

import pytest

from ags_flows.emulator.sandbox import Bind, isolation

pytestmark = pytest.mark.skipif(isolation().bwrap is None, reason="no namespaces here")


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


@pytest.mark.parametrize("tool", ["bash", "tar", "python3", "git", "curl"])
def test_the_usual_programs_are_there(started, tool):
    import shutil

    if tool != "python3" and shutil.which(tool) is None:
        pytest.skip("the host has none")
    assert started.shell(started(), f"{tool} --version")[0] == 0


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


def test_a_port_of_the_host_is_not_that_of_a_sandbox(started):
    sandbox = started()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _ = started.shell(sandbox, f"exec 3<>/dev/tcp/127.0.0.1/{port}")

    assert code != 0
