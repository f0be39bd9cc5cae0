"""Checks of what one process needs to go on with the sandbox of another."""

from __future__ import annotations

import time

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, expect

GROUP = Group("take-over", instances=1)


@GROUP.check
def another_client_sees_a_claim(account: Account) -> str:
    """Metadata that one client writes is read by another within five seconds."""
    other = ControlPlane(account.connection)
    try:
        account.control.update_instance(account.instance().id, metadata={"verify-claim": account.run})
        began = time.monotonic()
        while other.get_instance(account.instance().id).metadata.get("verify-claim") != account.run:
            expect(time.monotonic() - began < 30, "not after 30 s")
            time.sleep(0.1)
    finally:
        other.close()
    seconds = time.monotonic() - began
    account.sample("metadata.seconds", seconds)
    expect(seconds < 5, f"after {seconds:.1f} s")
    return f"after {seconds:.1f} s"


@GROUP.check
def last_claim_wins(account: Account) -> None:
    """Of two values for one name of the metadata the later one stays."""
    for value in ("first", "second"):
        account.control.update_instance(account.instance().id, metadata={"verify-claim": value})
    value = account.look(account.instance().id).metadata.get("verify-claim", "")
    expect(value == "second", value)


@GROUP.check
def token_is_remembered(account: Account) -> str:
    """A ClientToken is remembered at least as long as this run takes until here."""
    first, age = account.instance().id, account.age("main")
    try:
        second = account.start("main").id
    except AGSFlowsError as error:
        account.answers["start.repeat.lasts"] = True
        return f"refused with {error.code} after {age:.0f} s"
    account.answers["start.repeat.lasts"] = first == second
    expect(first == second, f"a second instance after {age:.0f} s")
    return f"the same instance after {age:.0f} s"


@GROUP.check
def another_client_starts_no_second_one(account: Account) -> str:
    """Another client with the same ClientToken starts no second instance."""
    other = ControlPlane(account.connection)
    request = {"ToolId": account.tool.id, "Timeout": "5m", "ClientToken": f"{account.run}-shared"}
    first = account.control.call("StartSandboxInstance", request)["Instance"]["InstanceId"]
    account.keep(first)
    try:
        second = other.call("StartSandboxInstance", request)["Instance"]["InstanceId"]
    except AGSFlowsError as error:
        return f"refused with {error.code}"
    finally:
        other.close()
        account.release(first)
    account.keep(second)
    expect(first == second, "a second instance")
    return "the same instance"
