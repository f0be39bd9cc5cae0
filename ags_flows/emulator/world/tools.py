"""The tools of one region: create, change, find, delete."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.world import configuration
from ags_flows.emulator.world.durations import seconds_of
from ags_flows.emulator.world.mounts import check_mounts
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.tool import Tool
from ags_flows.emulator.world.transitions import StepFailed

if TYPE_CHECKING:
    from ags_flows.emulator.world.region import Region

Json = dict[str, Any]

BUILT_IN = (
    ("base", "custom", "The plain sandbox that E2B clients start by default."),
    ("code-interpreter-v1", "code-interpreter", "Runs code in Jupyter kernels, on port 49999."),
)
"""The tools that exist from the start: name, type, description."""


class Tools:
    """The tools of one region."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._world = region.world
        self._tools: dict[str, Tool] = {}

    def __iter__(self) -> Any:
        """Iterate over the tools, newest first."""
        return iter(sorted(self._tools.values(), key=lambda tool: -tool.number))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._tools)

    def build_in(self) -> None:
        """Make the tools that exist from the start, unless a tool has the name."""
        for name, kind, description in BUILT_IN:
            if self.named(name) is None:
                image = {"Image": f"{name}:latest", "ImageRegistryType": "system"}
                tool = self._new(name, kind)
                tool.description, tool.status, tool.custom = description, "ACTIVE", image
                tool.network = {"NetworkMode": "PUBLIC"}
                self._keep(tool)

    def create(self, request: Json) -> Tool:
        """Create a tool from a CreateSandboxTool request; it becomes ACTIVE or FAILED later.

        Raises:
            Refusal: for the first rule that is broken; then nothing was created.
        """
        name, kind = request.get("ToolName"), request.get("ToolType")
        if name is None:
            raise Refusal("MissingParameter", "The request is missing a required parameter `ToolName`.")
        if kind is None:
            raise Refusal("MissingParameter", "The request is missing a required parameter `ToolType`.")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name, re.ASCII):
            raise Refusal(
                "InvalidParameterValue.SandboxTool",
                "ToolName must have 1 to 50 characters, of English letters, digits, _ and -.",
            )
        if kind not in configuration.TOOL_TYPES:
            known = ", ".join(configuration.TOOL_TYPES)
            raise Refusal("InvalidParameterValue.ToolType", f"ToolType {kind!r} is not supported; supported: {known}.")
        configuration.check_role(request.get("RoleArn"))
        network = configuration.check_network(request.get("NetworkConfiguration"))
        self._check_description(request.get("Description"))
        timeout = 300
        if request.get("DefaultTimeout"):
            timeout = seconds_of(request["DefaultTimeout"], "DefaultTimeout", least=30)
        tags = configuration.check_tags(request.get("Tags"))
        role = request.get("RoleArn")
        custom = request.get("CustomConfiguration")
        if custom is None and kind == "custom":
            raise Refusal("MissingParameter", "The request is missing a required parameter `CustomConfiguration`.")
        if custom is not None:
            self._check_custom(custom, kind, role)
        mounts = check_mounts(request.get("StorageMounts"), role)
        if request.get("LogConfiguration"):
            configuration.check_logs(request["LogConfiguration"], role)
        self._check_computer(request.get("ComputerConfiguration"))
        if self.named(name) is not None:
            raise Refusal("InvalidParameterValue.SandboxTool", f"A sandbox tool named {name!r} exists already.")
        self._world.limits.check("tools", len(self), "LimitExceeded")

        tool = self._new(name, kind)
        tool.description = request.get("Description") or ""
        tool.persistent = bool(request.get("Persistent"))
        tool.default_timeout = timeout
        tool.network, tool.tags, tool.role_arn, tool.mounts = network, tags, role, mounts
        tool.custom, tool.computer = custom, request.get("ComputerConfiguration")
        tool.logs = request.get("LogConfiguration")
        tool.pending = self._world.transitions.begin("tool.create")
        self._keep(tool)
        if tool.pending.at_once:
            tool.pending.release()
            self._world.transitions.forget(tool.pending)
            tool.pending = None
            self._become(tool, configuration.unpullable((custom or {}).get("Image")))
        else:
            self._world.spawn(self._finish_creation(tool))
        return tool

    def update(self, request: Json) -> None:
        """Change what can be changed of a tool, from an UpdateSandboxTool request.

        Raises:
            Refusal: for the first rule that is broken; then nothing was changed.
        """
        tool = self.get(request.get("ToolId"))
        if tool.status != "ACTIVE":
            raise Refusal("ResourceUnavailable.SandboxTool", f"Tool {tool.tool_id} is {tool.status}, not ACTIVE.")
        network, custom = request.get("NetworkConfiguration"), request.get("CustomConfiguration")
        if network is not None:
            configuration.check_network(network)
        if custom is not None:
            self._check_custom(custom, tool.type, tool.role_arn)
        self._check_description(request.get("Description"))
        self._check_computer(request.get("ComputerConfiguration"))
        tags = configuration.check_tags(request["Tags"]) if request.get("Tags") is not None else None
        if tags is not None:
            kept = tool.tags if self._world.profile.merges_tags else []
            tool.tags = [*(tag for tag in kept if tag["Key"] not in {new["Key"] for new in tags}), *tags]
        if request.get("Description") is not None:
            tool.description = request["Description"]
        if network is not None:
            tool.network = network
        if custom is not None:
            tool.custom = custom
            broken = configuration.unpullable(custom.get("Image"))
            if broken:
                tool.status, tool.status_reason = "FAILED", broken
        if request.get("ComputerConfiguration") is not None:
            tool.computer = request["ComputerConfiguration"]
        tool.updated = self._world.clock.now()
        self._keep(tool)

    def delete(self, tool_id: str | None) -> None:
        """Delete a tool that no live instance uses.

        Raises:
            Refusal: ``ResourceNotFound.SandboxTool``, ``ResourceInUse.SandboxTool``.
        """
        tool = self.get(tool_id)
        if tool.status == "DELETING":
            return
        users = [each for each in self._region.instances if each.tool_id == tool.tool_id and not each.ended]
        if users:
            raise Refusal(
                "ResourceInUse.SandboxTool",
                f"Tool {tool.tool_id} is in use by {len(users)} instance(s), such as {users[0].instance_id}.",
            )
        before = tool.status
        tool.status, tool.updated = "DELETING", self._world.clock.now()
        if tool.pending is not None:
            tool.pending.release()
        tool.pending = self._world.transitions.begin("tool.delete")
        if tool.pending.at_once:
            self._world.transitions.forget(tool.pending)
            self._forget(tool)
        else:
            self._keep(tool)
            self._world.spawn(self._finish_deletion(tool, before))

    def get(self, tool_id: str | None) -> Tool:
        """Return a tool by its id.

        Raises:
            Refusal: ``ResourceNotFound.SandboxTool``.
        """
        if not tool_id:
            raise Refusal("MissingParameter", "The request is missing a required parameter `ToolId`.")
        tool = self._tools.get(tool_id)
        if tool is None:
            raise Refusal("ResourceNotFound.SandboxTool", f"Sandbox tool {tool_id} does not exist.")
        return tool

    def named(self, name: str) -> Tool | None:
        """Return the tool with this name, or None."""
        return next((tool for tool in self._tools.values() if tool.name == name), None)

    def load(self, document: Json) -> None:
        """Take a tool from the state directory; one that was being made is made now."""
        tool = Tool(**document)
        self._tools[tool.tool_id] = tool
        if tool.status == "CREATING":
            tool.pending = self._world.transitions.begin("tool.create")
            self._world.spawn(self._finish_creation(tool))
        elif tool.status == "DELETING":
            self._forget(tool)

    def _new(self, name: str, kind: str) -> Tool:
        now = self._world.clock.now()
        tool_id = "sdt-" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
        tool = Tool(tool_id, self._world.next_number(), self._region.name, name, kind, now, now)
        self._tools[tool_id] = tool
        return tool

    def _keep(self, tool: Tool) -> None:
        self._world.store.put("tools", tool.tool_id, tool.dump())

    def _forget(self, tool: Tool) -> None:
        self._tools.pop(tool.tool_id, None)
        self._world.store.drop("tools", tool.tool_id)

    def _become(self, tool: Tool, failure: str | None) -> None:
        if tool.status == "CREATING":
            tool.status, tool.status_reason = ("FAILED", failure) if failure else ("ACTIVE", "")
            tool.updated = self._world.clock.now()
            self._keep(tool)

    async def _finish_creation(self, tool: Tool) -> None:
        pending = tool.pending
        if pending is None:
            return
        failure = configuration.unpullable((tool.custom or {}).get("Image"))
        try:
            await pending.wait()
        except StepFailed as failed:
            failure = str(failed)
        if tool.pending is pending:
            tool.pending = None
        self._become(tool, failure)

    async def _finish_deletion(self, tool: Tool, before: str) -> None:
        pending = tool.pending
        if pending is None:
            return
        try:
            await pending.wait()
        except StepFailed as failed:
            tool.status, tool.status_reason, tool.pending = before, str(failed), None
            self._keep(tool)
            return
        # A moment in which DELETING can be seen, even when the step takes no time.
        await asyncio.sleep(0)
        self._forget(tool)

    def _check_custom(self, custom: Json, kind: str, role: str | None) -> None:
        configuration.check_custom(
            custom, whole=True, tool_type=kind, role_arn=role, strict_roles=self._world.settings.strict_roles
        )

    @staticmethod
    def _check_description(text: str | None) -> None:
        if text is not None and len(text) > 200:
            raise Refusal("InvalidParameter.Description", f"Description has {len(text)} characters; at most 200.")

    @staticmethod
    def _check_computer(computer: Json | None) -> None:
        version = ((computer or {}).get("OSWorldConfiguration") or {}).get("Version")
        if version not in (None, "osworld1", "osworld2"):
            raise Refusal("InvalidParameterValue", f"OSWorldConfiguration.Version {version!r} is not known.")
