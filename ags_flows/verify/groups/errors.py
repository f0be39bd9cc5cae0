"""Checks of the codes of errors, which decide what is retried."""

from __future__ import annotations

from ags_flows.verify.account import Account
from ags_flows.verify.check import Group

GROUP = Group("errors")
NOWHERE = "0" * 32


@GROUP.check
def unknown_instance(account: Account) -> str:
    """An unknown instance is refused by its code."""
    return account.refusal("ResourceNotFound.SandboxInstance", "StopSandboxInstance", {"InstanceId": NOWHERE})


@GROUP.check
def token_of_an_unknown_instance(account: Account) -> str:
    """A token for an unknown instance is refused by its code."""
    return account.refusal("ResourceNotFound.SandboxInstance", "AcquireSandboxInstanceToken", {"InstanceId": NOWHERE})


@GROUP.check
def unknown_tool(account: Account) -> str:
    """A start of an unknown tool is refused by its code."""
    return account.refusal("ResourceNotFound.SandboxTool", "StartSandboxInstance", {"ToolId": "sdt-00000000"})


@GROUP.check
def timeout_out_of_range(account: Account) -> str:
    """A timeout of 48 hours is refused by its code."""
    request = {"ToolId": account.tool.id, "Timeout": "48h"}
    return account.refusal("InvalidParameterValue.Timeout", "StartSandboxInstance", request)


@GROUP.check
def missing_tool(account: Account) -> str:
    """A start without a tool is refused by its code."""
    return account.refusal("MissingParameter", "StartSandboxInstance", {})


@GROUP.check
def unknown_filter(account: Account) -> str:
    """An unknown filter is refused by its code."""
    filters = [{"Name": "NoSuchFilter", "Values": ["x"]}]
    return account.refusal("InvalidParameter.Filters", "DescribeSandboxInstanceList", {"Filters": filters})


@GROUP.check
def offset_out_of_range(account: Account) -> str:
    """An offset above 10,000 is refused by its code."""
    request = {"Offset": 10_001, "Limit": 1}
    return account.refusal("InvalidParameterValue.OffsetTooLarge", "DescribeSandboxInstanceList", request)


@GROUP.check
def resume_of_a_running_instance(account: Account) -> str:
    """A resume of a running instance is refused by its code."""
    request = {"InstanceId": account.instance().id}
    return account.refusal("UnsupportedOperation.SandboxInstance", "ResumeSandboxInstance", request)
