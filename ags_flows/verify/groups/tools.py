"""Checks of tools."""

from __future__ import annotations

import time

from ags_flows.errors import AGSFlowsError, ConflictError, InvalidRequestError
from ags_flows.models import ToolSpec
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect
from ags_flows.verify.watch import watch

GROUP = Group("tools", tools=2, shares=("tool",))


@GROUP.check
def created_tool_becomes_active(account: Account) -> str:
    """A tool that is created becomes ACTIVE."""
    expect(account.tool.status == "ACTIVE", account.tool.status)
    return f"after {account.answers['tool.create.seconds']:.1f} s"


@GROUP.check
def tool_is_found_by_name(account: Account) -> None:
    """A tool is found by its name."""
    fields = account.control.call(
        "DescribeSandboxToolList", {"Filters": [{"Name": "ToolName", "Values": [account.tool.name]}]}
    )
    expect([one["ToolId"] for one in fields["SandboxToolSet"]] == [account.tool.id], f"{fields['TotalCount']} tools")


@GROUP.check
def tool_is_described_as_created(account: Account) -> None:
    """A tool is described as it was created."""
    tool = account.control.list_tools(ids=[account.tool.id])[0]
    expect(tool.type == "code-interpreter", tool.type)
    expect("ags-flows verify" in tool.description, repr(tool.description))


@GROUP.check
def name_is_unique(account: Account) -> str | None:
    """A second tool of the same name is refused."""
    try:
        spec = ToolSpec(name=account.tool.name, type="code-interpreter", description=account.description)
        tool_id = account.control.create_tool(spec)
    except (ConflictError, InvalidRequestError) as error:
        account.codes["InvalidParameterValue.SandboxTool"] = error.code or ""
        return error.code
    except AGSFlowsError as error:
        raise Different(f"{type(error).__name__} {error.code}") from error
    account.control.delete_tool(tool_id)
    raise Different("it was accepted")


@GROUP.check
def repeated_token_makes_no_second_tool(account: Account) -> str:
    """A repeated ClientToken makes no second tool."""
    request = {
        "ToolName": f"{account.tool.name}-2",
        "ToolType": "code-interpreter",
        "Description": account.description,
        "NetworkConfiguration": {"NetworkMode": "PUBLIC"},
        "ClientToken": f"{account.run}-repeat",
    }
    answers = []
    for _ in range(2):
        try:
            answers.append(account.control.call("CreateSandboxTool", request)["ToolId"])
            account.keep_tool(answers[-1])
        except AGSFlowsError as error:
            answers.append(error.code or "")
    if answers[0] == answers[1]:
        account.answers["tool.repeat"] = "replay"
        return "the same tool"
    account.answers["tool.repeat"] = "refuse"
    listed = [tool for tool in account.control.list_tools() if tool.name == request["ToolName"]]
    expect(len(listed) <= 1, f"{len(listed)} tools of one name")
    return f"refused with {answers[1]}"


@GROUP.check
def description_is_updated(account: Account) -> None:
    """A description is updated."""
    account.control.update_tool(account.tool.id, description=f"{account.tool.description} ")
    account.control.update_tool(account.tool.id, description=account.tool.description)
    tool = account.control.list_tools(ids=[account.tool.id])[0]
    expect(tool.description == account.tool.description, repr(tool.description))


@GROUP.check
def tags_are_replaced(account: Account) -> str:
    """New tags replace all tags of a tool."""
    account.control.update_tool(account.tool.id, tags={"verify-one": "1"})
    account.control.update_tool(account.tool.id, tags={"verify-two": "2"})
    tags = account.control.list_tools(ids=[account.tool.id])[0].tags
    account.answers["tool.tags"] = "merge" if "verify-one" in tags else "replace"
    expect(tags.get("verify-two") == "2", sorted(tags))
    expect("verify-one" not in tags, "merged with those before")
    return "replaced"


@GROUP.check
def deleted_tool_disappears(account: Account) -> str:
    """A tool that is deleted disappears from the list."""
    tool = account.once("tool second", lambda: account.make_tool("second"))
    began = time.monotonic()
    account.control.delete_tool(tool.id)
    _, seen = watch(lambda: not account.control.list_tools(ids=[tool.id]) or None, 60, "it is still listed")
    account.sample("tool.delete.seconds", seen - began)
    return f"after {seen - began:.1f} s"
