"""Checks of quotas."""

from __future__ import annotations

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group, NotAvailable, expect

GROUP = Group("quotas")


@GROUP.check
def quotas_are_told(account: Account) -> str:
    """The quotas of the account are listed."""
    quotas = account.control.quotas()
    if quotas.instances is None:
        raise NotAvailable("the account lists no quota of instances")
    expect(quotas.instances.limit >= 1, f"{quotas.instances.limit:g} instances")
    return str(quotas)


@GROUP.check
def running_instances_count(account: Account) -> str:
    """A running instance counts."""
    account.instance()
    quotas = account.control.quotas()
    if quotas.instances is None:
        raise NotAvailable("the account lists no quota of instances")
    expect(quotas.instances.used >= 1, f"{quotas.instances.used:g} instances")
    return f"{quotas.instances.used:g} of {quotas.instances.limit:g}"
