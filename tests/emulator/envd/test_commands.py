"""Commands over envd, as users of the SDKs see them."""

import asyncio
import hashlib
import threading
import time

import pytest
from e2b import CommandExitException, InvalidArgumentException, NotFoundException, SandboxException, TimeoutException
from e2b.exceptions import AuthenticationException
from e2b.sandbox_sync.commands.command import Commands

from ags_flows.emulator.sandbox import isolation

needs_root = pytest.mark.skipif(not isolation().root, reason="an ordinary user has no other users to give")


def test_a_command_gives_its_output_and_exit_code(box):
    done = box.commands.run("echo out; echo err >&2; exit 0")

    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 0)


def test_a_failed_command_raises_with_code_and_output(box):
    with pytest.raises(CommandExitException) as caught:
        box.commands.run("echo output; exit 7")

    assert caught.value.exit_code == 7
    assert caught.value.stdout == "output\n"


def test_a_missing_command_is_exit_127(box):
    with pytest.raises(CommandExitException) as caught:
        box.commands.run("/no/such/thing")

    assert caught.value.exit_code == 127


def test_the_default_user_is_user_in_its_home(box):
    done = box.commands.run("whoami; pwd; echo $HOME $USER $LOGNAME; umask")

    assert done.stdout.splitlines() == ["user", "/home/user", "/home/user user user", "0022"]


def test_nothing_of_the_hosts_environment_or_descriptors_is_seen(box):
    names = {line.partition("=")[0] for line in box.commands.run("env").stdout.splitlines()}

    known = {"PATH", "HOME", "USER", "LOGNAME", "E2B_SANDBOX", "E2B_SANDBOX_ID", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {name for name in names if not name.lower().endswith("_proxy")} <= {*known, "GIVEN", "BOTH"}
    assert set(box.commands.run("ls /proc/self/fd").stdout.split()) == {"0", "1", "2", "3"}


def test_programs_of_e2b_find_where_they_are(box):
    done = box.commands.run("echo $E2B_SANDBOX $E2B_SANDBOX_ID; cat /run/e2b/.E2B_SANDBOX /run/e2b/.E2B_SANDBOX_ID")

    assert done.stdout == f"true {box.sandbox_id}\ntrue{box.sandbox_id}"


def test_the_environment_of_a_call_wins_over_that_of_the_sandbox(box):
    done = box.commands.run("echo $GIVEN $BOTH $OWN $HOME", envs={"BOTH": "call", "OWN": "here"})

    assert done.stdout == "by the sandbox call here /home/user\n"


@needs_root
def test_users_are_real_and_unknown_ones_are_refused(box):
    assert box.commands.run("whoami; id -u; echo $HOME; pwd", user="root").stdout.split() == [
        "root", "0", "/root", "/root"]  # fmt: skip
    with pytest.raises(AuthenticationException, match="invalid username: 'stranger'"):
        box.commands.run("true", user="stranger")


@needs_root
def test_user_may_become_root_without_a_password(box):
    assert box.commands.run("sudo whoami && sudo -n id -u && sudo -u user whoami").stdout.split() == [
        "root",
        "0",
        "user",
    ]
    assert box.commands.run("sudo mkdir /made-at-root && ls -d /made-at-root").stdout == "/made-at-root\n"


@pytest.mark.parametrize(
    ("cwd", "expected"),
    [("/tmp", "/tmp"), ("~", "/home/user"), ("~/a", "/home/user/a"), ("a", "/home/user/a"), (None, "/home/user")],
)
def test_the_working_directory_is_resolved_from_the_home(box, cwd, expected):
    box.files.make_dir("/home/user/a")

    assert box.commands.run("pwd", cwd=cwd).stdout.strip() == expected


@pytest.mark.parametrize(("cwd", "message"), [("/nowhere", "cwd '/nowhere' does not exist"), ("~bob", "home")])
def test_a_working_directory_that_is_not_there_is_refused(box, cwd, message):
    with pytest.raises(InvalidArgumentException, match=message):
        box.commands.run("pwd", cwd=cwd)


def test_output_is_streamed_while_the_command_runs(box):
    seen = []
    box.commands.run(
        "for i in 1 2 3; do echo $i; sleep 0.15; done", on_stdout=lambda text: seen.append(time.monotonic())
    )

    assert len(seen) == 3
    assert seen[-1] - seen[0] > 0.2


def test_a_lot_of_output_arrives_whole(box):
    done = box.commands.run("head -c 8000000 /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/zero | tr '\\0' y >&2")

    assert len(done.stdout) == 8_000_001
    assert len(done.stderr) == 100_000


def test_a_time_limit_kills_the_command(box):
    started = time.monotonic()
    with pytest.raises(TimeoutException):
        box.commands.run("echo $$ > /tmp/limited; exec sleep 60", timeout=0.4)

    assert time.monotonic() - started < 5
    time.sleep(0.1)
    assert box.commands.run("kill -0 $(cat /tmp/limited) 2>/dev/null || echo dead").stdout == "dead\n"


def test_a_background_child_that_holds_the_output_keeps_the_command_open(box):
    started = time.monotonic()
    box.commands.run("sleep 0.6 & echo started")
    held = time.monotonic() - started
    box.commands.run("sleep 5 >/dev/null 2>&1 & echo started")

    assert held > 0.5
    assert time.monotonic() - started - held < 2


def test_a_background_command_is_listed_and_can_be_killed(box):
    handle = box.commands.run("sleep 61", background=True, timeout=0)
    listed = {process.pid: process for process in box.commands.list()}
    inside = box.commands.run(f"cat /proc/{handle.pid}/comm").stdout

    assert listed[handle.pid].args == ["-l", "-c", "sleep 61"]
    assert inside.strip() in ("sleep", "bash")
    assert handle.kill() is True
    with pytest.raises(CommandExitException) as caught:
        handle.wait()
    assert (caught.value.exit_code, caught.value.error) == (-1, "signal: killed")
    assert handle.pid not in {process.pid for process in box.commands.list()}
    assert box.commands.kill(handle.pid) is False


def test_a_killed_process_is_gone_immediately(box):
    handles = [box.commands.run("sleep 30", background=True) for _ in range(10)]
    gone = []
    for handle in handles:
        assert box.commands.kill(handle.pid) is True
        # As a zombie it would still accept the signal.
        gone.append(not box.files.exists(f"/proc/{handle.pid}"))

    assert all(gone)


def test_only_the_process_itself_is_killed_not_its_children(box):
    handle = box.commands.run("sleep 62 & echo $!; wait", background=True, timeout=0)
    out = next(text for text, _, _ in handle if text)
    handle.kill()

    assert box.commands.run(f"cat /proc/{out.strip()}/comm").stdout == "sleep\n"
    box.commands.run(f"kill {out.strip()}")


def test_a_client_that_leaves_does_not_end_the_command(box):
    handle = box.commands.run("sleep 0.5; echo done > /tmp/left", background=True, timeout=0)
    handle.disconnect()

    time.sleep(0.9)
    assert box.files.read("/tmp/left") == "done\n"


def test_a_client_that_connects_gets_later_output_and_the_end(box):
    handle = box.commands.run("echo early; sleep 0.5; echo late; exit 3", background=True, timeout=0)
    time.sleep(0.2)
    second = box.commands.connect(handle.pid)
    with pytest.raises(CommandExitException) as caught:
        second.wait()

    assert (caught.value.exit_code, caught.value.stdout) == (3, "late\n")


def test_the_end_of_a_process_can_be_asked_for_a_while_later(box):
    handle = box.commands.run("exit 5", background=True, timeout=0)
    with pytest.raises(CommandExitException):
        handle.wait()
    with pytest.raises(CommandExitException) as caught:
        box.commands.connect(handle.pid).wait()

    assert caught.value.exit_code == 5
    with pytest.raises(NotFoundException):
        box.commands.connect(999_999)


def test_a_reader_that_stalls_holds_the_command_up_and_one_that_is_gone_does_not(box):
    many = "head -c 60000000 /dev/zero; echo wrote > /tmp/"
    stalled = box.commands.run(many + "stalled", background=True, timeout=0)
    gone = box.commands.run(many + "gone", background=True, timeout=0)
    gone.disconnect()
    deadline = time.monotonic() + 10
    while not box.files.exists("/tmp/gone") and time.monotonic() < deadline:
        time.sleep(0.05)

    assert box.files.exists("/tmp/gone")
    assert not box.files.exists("/tmp/stalled")
    stalled.wait()
    assert box.files.exists("/tmp/stalled")


def test_input_is_sent_in_order_and_can_be_closed(box):
    handle = box.commands.run("cat; sleep 0.3; echo end", background=True, stdin=True, timeout=0)
    for word in ("one ", "two ", "three"):
        handle.send_stdin(word)
    handle.close_stdin()
    handle.close_stdin()

    assert handle.wait().stdout == "one two threeend\n"


streams_input = pytest.mark.skipif(not hasattr(Commands, "stream_input"), reason="an SDK that cannot do it yet")


@streams_input
def test_input_may_be_a_stream(box):
    handle = box.commands.run("head -c 300000 | md5sum", background=True, stdin=True, timeout=0)
    box.commands.stream_input(handle.pid, (b"x" * 1000 for _ in range(300)))

    assert handle.wait().stdout.split()[0] == hashlib.md5(b"x" * 300_000).hexdigest()
    with pytest.raises(NotFoundException):
        box.commands.stream_input(999_999, [b"x"])


async def _converse(box):
    said = []
    script = "while read line; do echo got $line; done"
    handle = await box.commands.run(script, background=True, stdin=True, timeout=0, on_stdout=said.append)
    async with box.commands.stream_input(handle.pid) as stream:
        for word in ("one", "two"):
            await stream.send(f"{word}\n")
            for _ in range(100):
                if said[-1:] == [f"got {word}\n"]:
                    break
                await asyncio.sleep(0.02)
    await box.commands.close_stdin(handle.pid)
    await handle.wait()
    with pytest.raises(NotFoundException):
        async with box.commands.stream_input(999_999) as stream:
            await stream.send("x")
    hanging = await box.commands.run("sleep 5", background=True, stdin=True, timeout=0)
    stream = box.commands.stream_input(hanging.pid, timeout=0.3)
    await stream.send("x")
    await asyncio.sleep(0.6)
    with pytest.raises(TimeoutException):
        await stream.close()
    await hanging.kill()
    return said


@streams_input
def test_a_conversation_by_one_stream_is_in_order(async_box):
    assert asyncio.run(_converse(async_box)) == ["got one\n", "got two\n"]


def test_without_input_there_is_none(box):
    assert box.commands.run("cat; echo end").stdout == "end\n"
    handle = box.commands.run("sleep 5", background=True, timeout=0)
    with pytest.raises(SandboxException, match="stdin not enabled or closed"):
        box.commands.send_stdin(handle.pid, "x")
    handle.kill()


def test_binary_output_and_split_characters_arrive(box):
    done = box.commands.run("printf '\\xc3'; sleep 0.1; printf '\\xa4 ok'")

    assert done.stdout == "ä ok"


def test_many_concurrent_commands_all_succeed(box):
    failures = []

    def work():
        for _ in range(10):
            try:
                assert box.commands.run("echo x").stdout == "x\n"
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_a_null_byte_is_refused(box):
    with pytest.raises(InvalidArgumentException):
        box.commands.run("echo \0")


def test_the_sandbox_is_its_own_machine(box, name):
    assert box.commands.run("hostname").stdout.strip() == name
    assert box.commands.run("test -w /dev/shm && echo yes").stdout == "yes\n"
    assert int(box.commands.run("ls /proc | grep -c '^[0-9]'").stdout) < 30
    assert box.commands.run("python3 --version; pip --version || true").stdout.startswith("Python 3")


def test_sudo_runs_what_it_is_given(box):
    assert (
        box.commands.run("sudo -n echo test; sudo -E A=1 sh -c 'echo $A'; sudo -u root -- echo x").stdout
        == "test\n1\nx\n"
    )


def test_a_command_that_is_too_long_is_refused(box):
    with pytest.raises(InvalidArgumentException, match="Argument list too long"):
        box.commands.run("x" * 200_000)
