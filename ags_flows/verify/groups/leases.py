"""Checks of timeouts, which leases are made of."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, expect

GROUP = Group("leases", instances=1)


def _left(account: Account, name: str = "main") -> float:
    end = account.look(account.instance(name).id).expires_at
    expect(end is not None, "no end is listed")
    assert end is not None
    return (end - datetime.now(timezone.utc)).total_seconds()


@GROUP.check
def end_is_listed(account: Account) -> str:
    """The end of an instance is listed, and is the timeout away."""
    left = _left(account)
    expect(30 < left < 660, f"{left:.0f} s")
    return f"{left:.0f} s"


@GROUP.check
def lease_is_extended(account: Account) -> str:
    """A new timeout counts from now."""
    account.control.update_instance(account.instance().id, timeout="20m")
    left = _left(account)
    expect(1140 < left < 1230, f"{left:.0f} s")
    return f"{left:.0f} s"


@GROUP.check
def lease_is_shortened(account: Account) -> str:
    """A new timeout may be shorter."""
    account.control.update_instance(account.instance().id, timeout="10m")
    left = _left(account)
    account.answers["timeout.shortens"] = left < 700
    expect(540 < left < 630, f"{left:.0f} s")
    return f"{left:.0f} s"


@GROUP.slow_check
def instance_ends_at_its_timeout(account: Account) -> str:
    """An instance ends at its timeout, with that reason."""
    instance = account.running(account.start("short", timeout="30s"))
    began = time.monotonic()
    account.until(instance, "STOPPED")
    seconds = time.monotonic() - began
    expect(seconds < 90, f"after {seconds:.0f} s")
    found = account.control.list_instances(ids=[instance.id])
    reason = (found[0].stop_reason or "").lower() if found else "timeout"
    expect(reason == "timeout", f"reason {reason!r}")
    return f"after {seconds:.0f} s"
