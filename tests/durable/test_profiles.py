"""Login profiles do not affect the scripts, and the caller's settings take precedence over those of the profile."""

import itertools
import os
import time
import uuid

import pytest

from ags_flows.durable.cells import Once
from ags_flows.durable.command import Command, DurableCommand
from ags_flows.durable.direct import run_direct
from ags_flows.emulator.sandbox import isolation
from ags_flows.errors import InvalidRequestError, OutcomeUnknownError
from ags_flows.ownership import Frame, Holder, Place, Step

PROFILES = {
    "prints": "echo Welcome to this image; echo warning >&2",
    "changes directory": "cd /tmp",
    "is slow": "sleep 1.5",
    "stops at errors": "set -eu",
    "fails": "false",
    "exports": "export PATH=/usr/bin:/bin MODE=profile HOME=/tmp LANG=xx_YY IFS=:; umask 077; IFS=:",
    "has aliases": "shopt -s expand_aliases; alias cd=false ls=false mkdir=false; cd() { false; }; printf() { false; }",
}

attempts = itertools.count(1)


def step(name="", attempt=None):
    frames = (Frame("flow", "a" * 32, attempt or next(attempts)), Frame("call", uuid.uuid4().hex))
    return Step(name or uuid.uuid4().hex, "", "a" * 32, Place(), Holder(frames))


@pytest.fixture(params=PROFILES, scope="module")
def profiled(request, sandbox):
    """A sandbox whose users have a login profile."""
    from ags_flows.cloud.data_planes import open_plane

    config, instance = sandbox
    plane = open_plane(config.connection(), instance.id).plane
    users = (
        {"user": "/home/user", "root": "/root"} if isolation().root and os.geteuid() == 0 else {"user": "/home/user"}
    )
    for user, home in users.items():
        plane.write(f"{home}/.bash_profile", PROFILES[request.param] + "\n", user=user)
    yield plane, users
    for user, home in users.items():
        plane.remove(f"{home}/.bash_profile", user=user)


def last(text):
    return text.splitlines()[-1] if text.strip() else ""


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "direct"])
def test_environment_directory_and_input_take_precedence_over_the_profile(profiled, durable):
    plane, users = profiled
    for user in users:
        command = Command(
            'read -r line; builtin printf "%s\\n" "$line $MODE $PWD ${PATH%%:*}"',
            user=user,
            cwd="/usr",
            env={"MODE": "given", "PATH": "/opt/x:/usr/bin:/bin", "it's": "odd"},
            stdin=b"from stdin\n",
        )
        result = (
            DurableCommand(plane, command).start(step()).wait()
            if durable
            else run_direct(plane, command, step().holder)
        )
        assert result.exit_code == 0, result
        assert last(result.stdout) == "from stdin given /usr /opt/x"


def test_a_retry_attaches_to_the_command_with_any_profile(profiled):
    plane, users = profiled
    for user in users:
        mark = f"/tmp/{uuid.uuid4().hex}"
        command = Command(f"builtin echo x >> {mark}; exit 7", user=user)
        name = uuid.uuid4().hex
        for _ in range(2):
            assert DurableCommand(plane, command).start(step(name)).wait().exit_code == 7
        assert plane.read(mark, user=user) == b"x\n"


def test_a_background_command_is_killed_with_any_profile(profiled):
    plane, users = profiled
    for user in users:
        running = DurableCommand(plane, Command("builtin echo ready; exec sleep 300", user=user)).start(step())
        running.kill()
        assert running.wait().exit_code in (143, 137)


def test_a_cell_is_claimed_once_with_any_profile(profiled):
    plane, _ = profiled
    once = step(attempt=1)
    for _ in range(2):
        result, claimed = Once(plane, "cells", once).run(lambda: "result", str, bytes.decode)
        assert (result, claimed.number) == ("result", 0)


def test_a_relative_directory_is_in_the_home_and_a_missing_one_is_an_error(profiled):
    plane, users = profiled
    for user, home in users.items():
        plane.write(f"{home}/work/file", "x", user=user)
        result = DurableCommand(plane, Command("builtin pwd", user=user, cwd="work")).start(step()).wait()
        assert last(result.stdout) == f"{home}/work"
        missing = Command("builtin pwd", user=user, cwd="/no such place")
        with pytest.raises(InvalidRequestError, match="no directory '/no such place'"):
            DurableCommand(plane, missing).start(step())
        with pytest.raises(InvalidRequestError, match="no directory '/no such place'"):
            run_direct(plane, missing, step().holder)


def test_a_retry_attaches_to_a_command_that_removed_its_directory(plane):
    plane.write("gone/file", "x")
    command, name = Command("rm -rf ../gone; exit 3", cwd="gone"), uuid.uuid4().hex
    assert DurableCommand(plane, command).start(step(name)).wait().exit_code == 3
    assert DurableCommand(plane, command).start(step(name)).wait().exit_code == 3


def test_a_direct_command_whose_connection_is_cut_has_an_unknown_outcome(sandbox, ags_emulator_process, plane):
    _, instance = sandbox
    ags_emulator_process.stream_fault(
        "cut", instance_id=instance.id, path="/process.Process/Start", after_seconds=0.3, times=1
    )
    with pytest.raises(OutcomeUnknownError, match="may have run"):
        run_direct(plane, Command("sleep 2"), step().holder)


def test_a_time_limit_does_not_count_a_pause(sandbox, plane):
    config, instance = sandbox
    control = config.control_plane()
    running = DurableCommand(plane, Command("sleep 5; echo done", timeout=8)).start(step())
    control.pause_instance(instance.id)
    deadline = time.monotonic() + 30
    while control.get_instance(instance.id).status != "PAUSED":
        assert time.monotonic() < deadline
    paused = time.monotonic()
    while time.monotonic() - paused < 9:
        time.sleep(0.2)
    control.resume_instance(instance.id, timeout="1h")
    assert running.wait().stdout == "done\n"
