"""Tools of AGS as typed calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ags_flows.cloud import wire
from ags_flows.cloud.arguments import check_client_token, is_tool_id
from ags_flows.cloud.calls import Calls
from ags_flows.cloud.paging import by_offset, chunks, filtered, take
from ags_flows.errors import ConfigurationError, ConflictError, NotFoundError
from ags_flows.models import Computer, CustomConfiguration, Network, Tool, ToolSpec


class Tools(Calls):
    """The part of `ControlPlane` that is about tools."""

    def create_tool(self, spec: ToolSpec, *, client_token: str | None = None) -> str:
        """Create a tool and return its id. It becomes ACTIVE, or FAILED, later."""
        parameters = {**wire.tool_to_wire(spec), **wire.present(ClientToken=check_client_token(client_token))}
        return str(wire.part(self.call("CreateSandboxTool", parameters), "CreateSandboxTool", "ToolId"))

    def get_tool(self, tool: str) -> Tool:
        """Return a tool by id or by name.

        Raises:
            NotFoundError: There is none.
        """
        found = self.list_tools(ids=[tool]) if is_tool_id(tool) else self.list_tools(name=tool)
        if not found:
            raise NotFoundError(
                f"There is no tool {tool!r} in region {self.connection.region}.",
                hint="Check the name or id; `ensure_tool` creates what is missing.",
                code="ResourceNotFound.SandboxTool",
            )
        return found[0]

    def list_tools(
        self,
        *,
        ids: Sequence[str] | None = None,
        name: str | None = None,
        type: str | None = None,
        status: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Tool]:
        """Return the tools, all of them unless `limit` is given; conditions must all hold.

        AGS has changed its filters before. So its responses are filtered again here, and if AGS refuses a filter by
        name, all tools are read.
        """
        conditions = wire.present(ToolName=name, ToolType=type, Status=status)
        filters = [{"Name": key, "Values": [value]} for key, value in conditions.items()]
        filters += [{"Name": "Tag", "Values": [f"{key}={value}"]} for key, value in (tags or {}).items()]

        def matches(tool: Tool) -> bool:
            return (
                (name is None or tool.name == name)
                and (type is None or tool.type == type)
                and (status is None or tool.status == status)
                and all(tool.tags.get(key) == value for key, value in (tags or {}).items())
            )

        return filtered(filters, lambda kept: take(filter(matches, self._tools(kept, ids)), limit))

    def update_tool(
        self,
        tool_id: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        network: Network | None = None,
        custom: CustomConfiguration | None = None,
        computer: Computer | None = None,
    ) -> None:
        """Change what AGS lets change: description, tags (replaced as a whole), network, container, computer.

        Raises:
            ConfigurationError: Nothing is given to change.
        """
        parameters: dict[str, Any] = {"ToolId": tool_id}
        if description is not None:
            parameters["Description"] = description
        if tags is not None:
            parameters["Tags"] = wire.pairs(tags, "Key")
        if network is not None:
            parameters["NetworkConfiguration"] = wire.network_to_wire(network)
        if custom is not None:
            parameters["CustomConfiguration"] = wire.custom_to_wire(custom)
        if computer is not None:
            parameters["ComputerConfiguration"] = wire.computer_to_wire(computer)
        if len(parameters) == 1:
            raise ConfigurationError(
                "Nothing to update.",
                hint="Give description, tags, network, custom or computer; the rest of a tool is fixed.",
            )
        self.call("UpdateSandboxTool", parameters)

    def delete_tool(self, tool: str) -> None:
        """Delete a tool by id or name; one that is gone, or being deleted, is a success.

        Raises:
            ConflictError: Instances of it still live.
        """
        try:
            tool_id = tool if is_tool_id(tool) else self.get_tool(tool).id
            self.call("DeleteSandboxTool", {"ToolId": tool_id})
        except NotFoundError:
            return
        except ConflictError:
            known = self.list_tools(ids=[tool_id])
            if known and known[0].status != "DELETING":
                raise

    def _tools(self, filters: list[dict[str, Any]], ids: Sequence[str] | None) -> Iterator[Tool]:
        for chunk in chunks(ids):
            parameters = wire.present(Filters=filters, ToolIds=chunk)
            for fields in by_offset(self.call, "DescribeSandboxToolList", parameters, "SandboxToolSet"):
                yield wire.tool_from_wire(fields)
