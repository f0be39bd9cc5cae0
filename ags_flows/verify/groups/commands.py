"""Checks of commands that belong to their connection."""

from __future__ import annotations

import time

from ags_flows.errors import AGSFlowsError, CommandTimeoutError, InvalidRequestError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect

GROUP = Group("commands")


@GROUP.check
def exit_code_is_passed_on(account: Account) -> None:
    """The exit code of a command is passed on."""
    code = account.plane().run("exit 7").exit_code
    expect(code == 7, code)


@GROUP.check
def streams_are_apart(account: Account) -> None:
    """Standard output and standard error are apart."""
    result = account.plane().run("echo out; echo err >&2")
    expect((result.stdout, result.stderr) == ("out\n", "err\n"), (result.stdout, result.stderr))


@GROUP.check
def environment_and_directory_hold(account: Account) -> None:
    """Environment and working directory of a command hold."""
    result = account.plane().run('echo "$VERIFY"; pwd', env={"VERIFY": "ü ' \" $x"}, cwd="/tmp")
    expect(result.stdout == "ü ' \" $x\n/tmp\n", repr(result.stdout))


@GROUP.check
def root_is_a_user(account: Account) -> None:
    """Commands run as `user`, and as `root` if asked."""
    plane = account.plane()
    names = plane.run("id -un").stdout.strip(), plane.run("id -un", user="root").stdout.strip()
    expect(names == ("user", "root"), names)


@GROUP.check
def output_is_whole(account: Account) -> None:
    """A megabyte of output arrives whole."""
    result = account.plane().run("head -c 1000000 /dev/zero | tr '\\0' x", limit=2_000_000)
    expect(len(result.stdout) == 1_000_000, f"{len(result.stdout)} characters")


@GROUP.check
def time_limit_ends_a_command(account: Account) -> str:
    """A command is killed at its time limit."""
    began = time.monotonic()
    try:
        account.plane().run("sleep 60", timeout=1)
    except CommandTimeoutError:
        seconds = time.monotonic() - began
        expect(seconds < 10, f"after {seconds:.1f} s")
        return f"after {seconds:.1f} s"
    raise Different("it went on")


@GROUP.check
def missing_directory_is_refused(account: Account) -> None:
    """A working directory that is missing is refused."""
    try:
        account.plane().run("true", cwd="/verify/missing")
    except InvalidRequestError:
        return
    except AGSFlowsError as error:
        raise Different(f"{type(error).__name__}: {error.message}") from error
    raise Different("it ran")


@GROUP.check
def short_command_is_quick(account: Account) -> str:
    """A short command takes less than two seconds."""
    plane = account.plane()
    for _ in range(5):
        began = time.monotonic()
        plane.run("true")
        account.sample("command.seconds", time.monotonic() - began)
    seconds = account.answers["command.seconds"]
    expect(seconds < 2, f"{seconds:.2f} s")
    return f"{seconds * 1000:.0f} ms"
