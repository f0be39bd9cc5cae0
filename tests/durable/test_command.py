"""Durable commands: they run once, retries attach to them, output is complete, and kills reach the whole group."""

import hashlib
import itertools
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.durable.direct import run_direct
from ags_flows.emulator.sandbox import isolation
from ags_flows.errors import (
    CommandTimeoutError,
    ConfigurationError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    OutputTooLargeError,
    UnreachableError,
    UnsupportedError,
)
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.ownership import Frame, Holder, Place, Step

attempts = itertools.count(1)


@pytest.fixture
def key(request):
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:32]


def step_of(key, attempt=None, call=None):
    """Return a step of a run. Each step belongs to a later attempt than the previous one, unless `attempt` is set."""
    frames = (Frame("flow", "a" * 32, attempt or next(attempts)), Frame("call", call or uuid.uuid4().hex))
    return Step(key, "", "a" * 32, Place(), Holder(frames))


def journal_of(key):
    return f"{step_of(key).family}.0"


def durable(plane, command, *, key, step=None, on_line=None, on_note=None, cancelled=None, limit=1 << 20, **options):
    following = Following(on_line, on_note or (lambda text: None), cancelled or threading.Event(), limit)
    return DurableCommand(plane, Command(command, **options), following).start(step or step_of(key))


def run_durable(plane, command, **options):
    return durable(plane, command, **options).wait()


def running(plane, words):
    """Return the number of processes in the sandbox whose command line has these words."""
    script = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '{words}' || true"
    return int(plane.run(script.replace(words, words[:-1] + f"[{words[-1]}]")).stdout)


def test_a_short_command_has_its_result_after_the_start(plane, key):
    result = run_durable(plane, "echo out; echo err >&2; exit 3", key=key)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert (result.stdout_size, result.stderr_size, result.truncated) == (4, 4, False)


def test_lines_of_a_long_command_are_streamed(plane, key):
    received = []
    began = time.monotonic()
    run_durable(
        plane,
        "for i in 1 2 3; do echo $i; sleep 0.6; done",
        key=key,
        on_line=lambda stream, line: received.append((round(time.monotonic() - began, 1), stream, line)),
    )
    assert [line for _, _, line in received] == ["1", "2", "3"]
    assert received[0][0] < received[2][0] - 0.5


def test_a_retry_never_runs_the_same_command_twice(plane, key):
    command = f"echo once >> /tmp/{key}; echo done"
    first = run_durable(plane, command, key=key)
    notes = []
    second = run_durable(plane, command, key=key, on_note=notes.append)
    assert first.stdout == second.stdout == "done\n"
    assert plane.read(f"/tmp/{key}") == b"once\n"
    assert "Attached" in notes[0] and "has ended" in notes[0]


def test_twenty_concurrent_starts_run_the_command_once_and_all_get_its_output(plane, key):
    command = f"echo once >> /tmp/{key}; sleep 1; echo done; exit 5"
    mine = step_of(key, attempt=1, call="0" * 32)
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda _: run_durable(plane, command, key=key, step=mine), range(20)))
    assert {(result.exit_code, result.stdout) for result in results} == {(5, "done\n")}
    assert plane.read(f"/tmp/{key}") == b"once\n"


def test_binary_output_is_stored_unchanged(plane, key):
    result = run_durable(plane, "head -c 3000000 /dev/urandom | tee /tmp/random; sleep 0.5", key=key, limit=1000)
    assert result.stdout_size == 3_000_000
    assert result.truncated
    journal = plane.run(f"sha256sum < {result.journal}/out").stdout
    assert journal == plane.run("sha256sum < /tmp/random").stdout


def test_a_character_that_is_split_over_two_writes_is_decoded(plane, key):
    lines = []
    command = r"printf '\xe4\xbd'; sleep 0.6; printf '\xa0\xe5\xa5\xbd\n'"
    result = run_durable(plane, command, key=key, on_line=lambda _, line: lines.append(line))
    assert lines == ["你好"]
    assert result.stdout == "你好\n"


def test_env_cwd_and_user_apply_to_the_command(plane, key):
    command = 'echo "$GREETING $(pwd) $(whoami)"'
    result = run_durable(plane, command, key=key, env={"GREETING": "hi there"}, cwd="/tmp", user="root")
    # Without root privileges, only one user can be mapped into a sandbox: there `root` is called `user`, too.
    assert result.stdout == f"hi there /tmp {'root' if isolation().root else 'user'}\n"


def test_the_environment_is_not_written_to_the_journal(plane, key):
    result = run_durable(plane, "true", key=key, env={"PASSWORD": "hunter2-hunter2"})
    assert "hunter2" not in plane.run(f"cat {result.journal}/* 2>/dev/null").stdout


def test_a_command_that_is_too_long_for_an_argument_is_uploaded(plane, key):
    command = f"echo {'x' * 300_000} | wc -c"
    assert run_durable(plane, command, key=key).stdout.strip() == "300001"


def test_the_time_limit_kills_the_process_group_and_processes_that_left_it(plane, key):
    began = time.monotonic()
    with pytest.raises(CommandTimeoutError) as caught:
        run_durable(plane, "echo begun; sleep 4321 & setsid sleep 4322 & wait", key=key, timeout=1)
    assert time.monotonic() - began < 12
    assert caught.value.result.stdout == "begun\n"
    assert running(plane, "sleep 432") == 0


def test_a_kill_ends_the_whole_process_group(plane, key):
    with ThreadPoolExecutor(1) as pool:
        command = durable(plane, "sleep 5431 & sleep 5432", key=key)
        following = pool.submit(command.wait)
        while running(plane, "sleep 5432") == 0:
            time.sleep(0.1)
        command.kill()
        assert following.result(timeout=15).exit_code == 143
    assert running(plane, "sleep 543") == 0


def test_a_cancelled_wait_ends_within_two_seconds_and_the_command_continues(plane, key):
    cancelled = threading.Event()
    threading.Timer(1.0, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(InstanceGoneError, match="wait for the command"):
        run_durable(plane, "sleep 6543", key=key, cancelled=cancelled)
    assert time.monotonic() - began < 3
    assert running(plane, "sleep 6543") > 0
    durable(plane, "sleep 6543", key=key).kill()
    assert running(plane, "sleep 6543") == 0


def test_too_much_output_kills_the_command_and_raises_an_error(plane, key):
    with pytest.raises(OutputTooLargeError, match="Redirect"):
        run_durable(plane, "while :; do head -c 100000 /dev/zero; sleep 0.1; done", key=key, most_output=300_000)


def test_a_command_whose_supervisor_vanished_has_an_unknown_outcome_and_is_not_run_again(plane, key):
    command = f"echo once >> /tmp/{key}; sleep 7654"
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(run_durable, plane, command, key=key)
        while running(plane, "sleep 7654") == 0:
            time.sleep(0.1)
        plane.run(f"read -r pid _ < $HOME/.ags_flows/{plane.instance_id}/journal/{journal_of(key)}/pid; kill -9 $pid")
        with pytest.raises(OutcomeUnknownError, match="not known"):
            run_durable(plane, command, key=key)
        plane.run(f"echo '9 ' > $HOME/.ags_flows/{plane.instance_id}/journal/{journal_of(key)}/rc; kill_it=1")
        following.result(timeout=15)
    assert plane.read(f"/tmp/{key}") == b"once\n"
    plane.run(
        f"read -r child _ < $HOME/.ags_flows/{plane.instance_id}/journal/{journal_of(key)}/child; kill -9 -- -$child"
    )


def test_no_output_is_lost_when_the_connection_is_cut(sandbox, ags_emulator_process, plane, key):
    _, instance = sandbox
    for _ in range(6):
        ags_emulator_process.stream_fault("cut", instance_id=instance.id, times=1)
    notes = []
    result = run_durable(plane, "seq 1 20000; sleep 1; echo end", key=key, on_note=notes.append)
    assert result.stdout.splitlines() == [*map(str, range(1, 20001)), "end"]
    assert any("responds again" in note for note in notes)


def test_a_start_whose_response_is_lost_is_not_executed_twice(sandbox, ags_emulator_process, plane, key):
    _, instance = sandbox
    ags_emulator_process.stream_fault(
        "cut", instance_id=instance.id, path="/process.Process/Start", after_seconds=0.2, times=1
    )
    result = run_durable(plane, f"echo once >> /tmp/{key}; sleep 1; echo done", key=key)
    assert result.stdout == "done\n"
    assert plane.read(f"/tmp/{key}") == b"once\n"


def test_one_response_that_does_not_find_the_journal_ends_no_command(plane, key, monkeypatch):
    lists, listed = plane.list, []

    def list_late(path, **options):
        listed.append(path)
        if len(listed) == 2:
            raise NotFoundError(f"no such directory: {path}")
        if len(listed) == 3:
            plane.write("found", b"")
        return lists(path, **options)

    monkeypatch.setattr(plane, "list", list_late)
    assert run_durable(plane, "until [ -e found ]; do sleep 0.1; done; echo done", key=key).stdout == "done\n"


@pytest.mark.parametrize("error", [InvalidRequestError, UnsupportedError, NotFoundError])
@pytest.mark.parametrize("name", ["list", "read", "read_range", "run"])
def test_one_error_response_of_a_gateway_ends_no_command(plane, key, monkeypatch, name, error):
    command = Command(f"until [ -e /tmp/{key} ]; do sleep 0.1; done; seq 1 50000")
    running = DurableCommand(plane, command, Following(on_line=lambda *_: None)).start(step_of(key))
    refused = []

    def refuse_first(name, error):
        method = getattr(plane, name)

        def call(*arguments, **options):
            if name not in refused:
                refused.append(name)
                raise error("Refused by a gateway.")
            return method(*arguments, **options)

        monkeypatch.setattr(plane, name, call)

    plane.script(f"touch /tmp/{key}")
    if name == "run":
        # A script is asked after a response that does not find the journal.
        refuse_first("list", NotFoundError)
    refuse_first(name, error)
    result = running.wait()
    assert name in refused
    assert (result.exit_code, result.stdout_size) == (0, sum(len(f"{number}\n") for number in range(1, 50001)))


def test_a_command_whose_journal_is_removed_has_an_unknown_outcome(plane, key):
    with pytest.raises(OutcomeUnknownError, match="its journal vanished"):
        run_durable(plane, f'rm -rf "$HOME/.ags_flows/{plane.instance_id}/journal"; sleep 60', key=key)


def test_a_token_that_expires_while_a_command_runs_is_refreshed(sandbox, ags_emulator_process, plane, key):
    _, instance = sandbox
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(run_durable, plane, "sleep 2; echo done", key=key)
        time.sleep(0.8)
        ags_emulator_process.expire_tokens(instance.id)
        assert following.result(timeout=20).stdout == "done\n"


def test_command_and_environment_are_not_visible_in_the_list_of_processes(plane, key):
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(run_durable, plane, ": spot-me; sleep 3", key=key, env={"A_SECRET": "hunter2-in-env"})
        while running(plane, "sleep 3") == 0:
            time.sleep(0.1)
        seen = plane.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", user="root").stdout
        assert following.result(timeout=20).exit_code == 0
    assert "spot-me" not in seen.replace("cat /proc", "") and "hunter2" not in seen


def test_the_environment_may_have_any_names_and_values(plane, key):
    env = {"KEY": "k", "D": "d", "TIME": "t", "root": "r", "ODD": "it's\n$HOME `x`", "a-b": "dash", "UID": "7"}
    result = run_durable(plane, 'printf "%s|" "$KEY" "$D" "$TIME" "$root" "$ODD"; printenv a-b', key=key, env=env)
    assert result.stdout == "k|d|t|r|it's\n$HOME `x`|dash\n"


def test_a_long_environment_is_passed_completely_and_one_too_long_is_an_error(plane, key):
    env = {f"V{number}": "x" * 60_000 for number in range(5)}
    assert run_durable(plane, "echo ${#V0} ${#V4}", key=key, env=env).stdout == "60000 60000\n"
    with pytest.raises(ConfigurationError, match="env: LONG has 200,000 bytes"):
        run_durable(plane, "true", key=f"{key}2", env={"LONG": "x" * 200_000})


def test_the_exit_code_is_kept_on_a_full_disk(sandbox, ags_emulator_process, plane, key):
    _, instance = sandbox
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(run_durable, plane, "sleep 2; exit 5", key=key)
        while running(plane, "sleep 2") == 0:
            time.sleep(0.1)
        ags_emulator_process.fill_disk(instance.id)
        try:
            assert following.result(timeout=30).exit_code == 5
        finally:
            ags_emulator_process.fill_disk(instance.id, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="without root privileges the emulator has only one user")
def test_tmp_is_used_if_the_home_directory_is_not_writable(plane, key):
    plane.run("mv /home/user/.ags_flows /home/user/kept; chmod 555 /home/user", user="root")
    try:
        result = run_durable(plane, "echo here; exit 3", key=key)
        assert (result.exit_code, result.stdout) == (3, "here\n")
        assert result.journal.startswith("/tmp/.ags_flows-")
        assert plane.stat(result.journal.split("/journal")[0]).mode == 0o700
        plane.run("rm -rf /tmp/.ags_flows-*; mkdir -m 777 -p /tmp/.ags_flows-$(id -u user)/journal", user="root")
        with pytest.raises(UnsupportedError, match="belongs to another user"):
            run_durable(plane, "echo here", key=f"{key}2")
    finally:
        plane.run(
            "rm -rf /tmp/.ags_flows-*; chmod 755 /home/user; mv /home/user/kept /home/user/.ags_flows", user="root"
        )


def test_a_command_that_removes_its_own_directory_is_found_again(plane):
    plane.write("gone/file", "x")
    command, name = Command("rm -rf ../gone; exit 3", cwd="gone"), uuid.uuid4().hex
    assert DurableCommand(plane, command).start(step_of(name)).wait().exit_code == 3
    assert DurableCommand(plane, command).start(step_of(name)).wait().exit_code == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="without root privileges no command can move the home of its user")
@pytest.mark.parametrize("command", ["sudo -n mv ~ ${HOME}2; exit 5", "sudo -n rm -rf ~; sleep 1", "chmod 0 ~; exit 5"])
def test_the_outcome_of_a_command_that_takes_its_home_away_is_unknown(sandbox, monkeypatch, command):
    monkeypatch.setattr("ags_flows.durable.command.LOOK_AFTER", 1.0)
    control = sandbox[0].control_plane()
    instance = control.start_instance(tool="base", timeout="1h")
    wait_instance_running(control, instance.id, timeout=30)
    plane = open_plane(sandbox[0].connection(), instance.id).plane
    began = time.monotonic()
    with pytest.raises(OutcomeUnknownError, match="vanished"):
        DurableCommand(plane, Command(command)).start(step_of(uuid.uuid4().hex)).wait()
    assert time.monotonic() - began < 30
    control.stop_instance(instance.id)


def test_a_direct_command_whose_connection_is_cut_has_an_unknown_outcome(sandbox, ags_emulator_process, plane):
    _, instance = sandbox
    ags_emulator_process.stream_fault(
        "cut", instance_id=instance.id, path="/process.Process/Start", after_seconds=0.3, times=1
    )
    with pytest.raises(OutcomeUnknownError, match="may have run"):
        run_direct(plane, Command("sleep 2"), step_of(uuid.uuid4().hex).holder)


def test_a_time_limit_does_not_count_a_pause(sandbox, plane):
    config, instance = sandbox
    control = config.control_plane()
    running = DurableCommand(plane, Command("sleep 5; echo done", timeout=8)).start(step_of(uuid.uuid4().hex))
    control.pause_instance(instance.id)
    deadline = time.monotonic() + 30
    while control.get_instance(instance.id).status != "PAUSED":
        assert time.monotonic() < deadline
    paused = time.monotonic()
    while time.monotonic() - paused < 9:
        time.sleep(0.2)
    control.resume_instance(instance.id, timeout="1h")
    assert running.wait().stdout == "done\n"


def test_the_wait_for_a_command_outlasts_a_pause(sandbox, plane):
    config, instance = sandbox
    control = config.control_plane()
    missed = threading.Event()
    following = Following(on_note=lambda text: missed.set())
    running = DurableCommand(plane, Command("sleep 3; echo done"), following).start(step_of(uuid.uuid4().hex))
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(running.wait)
        control.pause_instance(instance.id)
        assert missed.wait(30)
        with pytest.raises(UnreachableError, match="has not ended") as raised:
            plane.read("/etc/hostname")
        assert raised.value.retryable
        control.resume_instance(instance.id, timeout="1h")
        assert waited.result(60).stdout == "done\n"
