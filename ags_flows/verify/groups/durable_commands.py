"""Checks of commands that belong to the sandbox."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.command import Command, DurableCommand
from ags_flows.errors import CommandTimeoutError
from ags_flows.run.holder import identify
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect

GROUP = Group("durable commands")


def _start(account: Account, text: str, name: str, **fields: Any) -> DurableCommand:
    command = Command(text, **fields)
    step = identify("verify", {**command.does(), "run": account.run}, step=name)
    return DurableCommand(account.plane(), command).start(step)


@GROUP.check
def result_is_whole(account: Account) -> None:
    """A durable command returns its exit code and all of its output."""
    result = _start(account, "seq 20000; echo err >&2; exit 5", "whole").wait()
    expect(result.exit_code == 5, result.exit_code)
    expect(result.stdout == "".join(f"{number}\n" for number in range(1, 20001)), f"{len(result.stdout)} characters")
    expect(result.stderr == "err\n", repr(result.stderr))


@GROUP.check
def it_outlives_its_client(account: Account) -> None:
    """A command runs on without its client, and is found again with all of its output."""
    command = Command("echo begin; echo run >> verify-runs; sleep 1; echo end")
    step = identify("verify", {**command.does(), "run": account.run}, step="found")
    DurableCommand(account.plane(), command).start(step)
    other = DataPlane(
        account.connection, account.instance().id, lambda: account.control.acquire_token(account.instance().id)
    )
    try:
        result = DurableCommand(other, command).start(step).wait()
    finally:
        other.close()
    expect(result.stdout == "begin\nend\n", repr(result.stdout))
    runs = account.plane().read("verify-runs").decode().split()
    expect(runs == ["run"], f"it ran {len(runs)} times")


@GROUP.check
def time_limit_kills_the_group(account: Account) -> None:
    """At the time limit all processes of a command are killed."""
    began = time.monotonic()
    try:
        _start(account, "sleep 3131 & sleep 3131", "limit", timeout=1.0).wait()
    except CommandTimeoutError:
        expect(time.monotonic() - began < 30, f"after {time.monotonic() - began:.0f} s")
    else:
        raise Different("it went on")
    left = account.plane().run("pgrep -fc '[s]leep 3131' || true").stdout.strip()
    expect(left in ("0", ""), f"{left} processes are left")


@GROUP.check
def it_can_be_killed(account: Account) -> None:
    """A durable command can be killed."""
    command = _start(account, "sleep 600", "killed")
    command.kill()
    expect(command.wait().exit_code != 0, "it ended with code 0")


@GROUP.check
def input_is_read(account: Account) -> None:
    """A durable command reads its standard input."""
    data = bytes(range(256)) * 100
    result = _start(account, "sha256sum | cut -c1-8; wc -c < /dev/null", "input", stdin=data).wait()
    expect(result.stdout.split()[0] == hashlib.sha256(data).hexdigest()[:8], repr(result.stdout))
