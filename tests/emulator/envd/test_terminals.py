"""Terminals."""

import pytest
from e2b import CommandExitException, SandboxException
from e2b.sandbox.commands.command_handle import PtySize


def _read_until(handle, text):
    seen = ""
    for _, _, data in handle:
        if data:
            seen += data.decode(errors="replace")
            if text in seen:
                return seen
    raise AssertionError(f"{text!r} did not come, but {seen!r}")


def test_a_terminal_has_the_size_a_name_and_a_user(box):
    handle = box.pty.create(PtySize(rows=31, cols=97), timeout=0, envs={"ABC": "123"}, cwd="/tmp")
    box.pty.send_stdin(handle.pid, b"stty size; tty; echo $ABC $TERM; pwd; whoami; echo e''nd\n")
    seen = _read_until(handle, "end")

    assert "31 97" in seen
    assert "/dev/pts/" in seen
    assert "123 xterm" in seen
    assert "/tmp" in seen and "user" in seen
    assert box.pty.kill(handle.pid) is True
    with pytest.raises(CommandExitException):
        handle.wait()
    assert box.pty.kill(handle.pid) is False


def test_a_terminal_can_be_resized(box):
    handle = box.pty.create(PtySize(rows=24, cols=80), timeout=0)
    box.pty.resize(handle.pid, PtySize(rows=50, cols=120))
    box.pty.send_stdin(handle.pid, b"stty size; exit 3\n")

    with pytest.raises(CommandExitException) as caught:
        seen = ""
        for _, _, data in handle:
            seen += data.decode(errors="replace") if data else ""
        assert "50 120" in seen
        handle.wait()
    assert caught.value.exit_code == 3


def test_control_c_interrupts_what_runs_in_it(box):
    handle = box.pty.create(PtySize(rows=24, cols=80), timeout=0)
    # What prints is in the foreground already: a signal to the shell itself would not reach it.
    box.pty.send_stdin(handle.pid, b"sh -c \"echo re''ady; exec sleep 50\"; echo st''atus $?\n")
    assert "ready" in _read_until(handle, "ready")
    box.pty.send_stdin(handle.pid, b"\x03")
    box.pty.send_stdin(handle.pid, b"echo aft''er $?\n")

    assert "after 130" in _read_until(handle, "after 130")
    handle.kill()


def test_a_client_that_connects_to_a_terminal_sees_later_output(box):
    handle = box.pty.create(PtySize(rows=24, cols=80), timeout=0)
    second = box.pty.connect(handle.pid)
    box.pty.send_stdin(handle.pid, b"echo he''re\n")

    assert "here" in _read_until(second, "here")
    handle.kill()


def test_the_input_of_a_terminal_is_not_that_of_a_command(box):
    handle = box.pty.create(PtySize(rows=24, cols=80), timeout=0)
    with pytest.raises(SandboxException):
        box.commands.send_stdin(handle.pid, "x")
    with pytest.raises(SandboxException):
        box.commands.close_stdin(handle.pid)
    handle.kill()
