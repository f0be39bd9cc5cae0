"""Checks of pause and resume."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, expect

GROUP = Group("pause and resume", instances=1, shares=("tool",))


def _paused(account: Account) -> str:
    """Leave a process and a file in an instance, and pause it."""
    instance = account.instance("paused")
    account.plane("paused").run(
        "echo kept > verify-kept; nohup sh -c 'while :; do sleep 0.2; done' >/dev/null 2>&1 </dev/null & echo $! > pid"
    )
    began = time.monotonic()
    answer = account.control.call("PauseSandboxInstance", {"InstanceId": instance.id, "Memory": True})
    account.answers["pause.status"] = answer.get("InstanceStatus") or ""
    account.until(instance, "PAUSED", "pause.seconds", began)
    return instance.id


def _resumed(account: Account) -> str:
    instance_id = account.once("paused", lambda: _paused(account))
    began = time.monotonic()
    account.control.resume_instance(instance_id, timeout="7m")
    account.until(account.instance("paused"), "RUNNING", "resume.seconds", began)
    return instance_id


@GROUP.check
def instance_is_paused(account: Account) -> str:
    """An instance becomes PAUSED."""
    instance_id = account.once("paused", lambda: _paused(account))
    status = account.look(instance_id).status
    expect(status == "PAUSED", status)
    return f"after {account.answers['pause.seconds']:.1f} s"


@GROUP.check
def paused_sandbox_is_told(account: Account) -> str:
    """The ports of a paused sandbox respond with an error."""
    instance_id = account.once("paused", lambda: _paused(account))
    status = account.http("GET", instance_id, 49983, "/health").status_code
    account.answers["paused.envd"] = status
    expect(status == 409, f"status {status}")
    return str(status)


@GROUP.check
def instance_is_resumed(account: Account) -> str:
    """A paused instance becomes RUNNING again."""
    account.once("resumed", lambda: _resumed(account))
    return f"after {account.answers['resume.seconds']:.1f} s"


@GROUP.check
def files_survive(account: Account) -> None:
    """Files survive a pause."""
    account.once("resumed", lambda: _resumed(account))
    expect(account.plane("paused").read("verify-kept") == b"kept\n", "other bytes")


@GROUP.check
def processes_survive(account: Account) -> None:
    """Processes survive a pause with memory."""
    account.once("resumed", lambda: _resumed(account))
    code = account.plane("paused").run("kill -0 $(cat pid)").exit_code
    expect(code == 0, "the process is gone")


@GROUP.check
def resume_sets_the_timeout(account: Account) -> str:
    """The timeout of a resume counts from the resume."""
    instance_id = account.once("resumed", lambda: _resumed(account))
    end = account.look(instance_id).expires_at
    expect(end is not None, "no end is listed")
    assert end is not None
    account.release(instance_id)
    left = (end - datetime.now(timezone.utc)).total_seconds()
    expect(300 < left < 450, f"{left:.0f} s")
    return f"{left:.0f} s"
