"""The instances of one region: find and list them, start and end them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.world import configuration, mounts
from ags_flows.emulator.world.durations import seconds_of
from ags_flows.emulator.world.instance import Instance, Lifecycle
from ags_flows.emulator.world.lifecycle import Course
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.tokens import Tokens
from ags_flows.emulator.world.tool import Tool

if TYPE_CHECKING:
    from ags_flows.emulator.world.region import Region

Json = dict[str, Any]


@dataclass
class Order:
    """What to start; the same for both APIs.

    Args:
        request: As StartSandboxInstance takes it.
        timeout: Seconds, in place of the request's ``Timeout`` (E2B allows less than 30 s).
        lifecycle: What happens at the end of the timeout.
        e2b: What only the E2B API knows.
    """

    request: Json
    timeout: int | None = None
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    e2b: Json = field(default_factory=dict)


class Instances(Course):
    """The instances of one region."""

    def __init__(self, region: Region) -> None:
        super().__init__(region.world)
        self._region = region

    def __iter__(self) -> Iterator[Instance]:
        """Iterate over the instances, newest first."""
        return iter(sorted(self._instances.values(), key=lambda instance: -instance.number))

    def get(self, instance_id: str | None) -> Instance:
        """Return an instance by its id.

        Raises:
            Refusal: ``ResourceNotFound.SandboxInstance``.
        """
        if not instance_id:
            raise Refusal("MissingParameter", "The request is missing a required parameter `InstanceId`.")
        instance = self._instances.get(instance_id)
        if instance is None:
            raise Refusal("ResourceNotFound.SandboxInstance", f"Sandbox instance {instance_id} does not exist.")
        return instance

    def start(self, order: Order) -> Instance:
        """Start an instance; it becomes RUNNING or STARTING_FAILED later.

        Raises:
            Refusal: for the first rule that is broken; then nothing was started.
        """
        request = order.request
        source, tool = self._origin(request)
        auth_mode = request.get("AuthMode") or "DEFAULT"
        if auth_mode not in configuration.AUTH_MODES:
            known = ", ".join(configuration.AUTH_MODES)
            raise Refusal("InvalidParameterValue", f"AuthMode {auth_mode!r} is not known; known: {known}.")
        timeout: int | None = order.timeout
        if timeout is None:
            timeout = tool.default_timeout
            if request.get("Timeout"):
                timeout = seconds_of(request["Timeout"], "Timeout", least=30)
        over = request.get("CustomConfiguration") or (source.custom_over if source is not None else None)
        if over is not None:
            configuration.check_custom(
                over,
                whole=False,
                tool_type=tool.type,
                role_arn=tool.role_arn,
                strict_roles=self._world.settings.strict_roles,
            )
        chosen = mounts.expand(tool.mounts, request.get("MountOptions"))
        metadata = metadata_of(request.get("Metadata"))
        live = [each for each in self if not each.ended and each.status not in ("PAUSED", "STOP_FAILED")]
        self._world.limits.check("instances", len(live), "LimitExceeded.SandboxInstance")

        now = self._world.clock.now()
        instance = Instance(
            instance_id=secrets.token_hex(16),
            number=self._world.next_number(),
            region=self._region.name,
            tool_id=tool.tool_id,
            tool_name=tool.name,
            tool_type=tool.type,
            created=now,
            updated=now,
            tokens=Tokens(self._world.clock.now, open_to_all=auth_mode == "NONE"),
            persistent=tool.persistent,
            timeout=None if tool.persistent else timeout,
            auth_mode=auth_mode,
            network_mode=(tool.network or {}).get("NetworkMode") or "PUBLIC",
            metadata=metadata,
            mount_options=request.get("MountOptions") or [],
            mounts=chosen,
            custom=configuration.merged(tool.custom, over),
            custom_over=over,
            computer=tool.computer,
            source=request.get("SnapshotId") or request.get("SourceInstanceId"),
            lifecycle=order.lifecycle,
            e2b=order.e2b,
        )
        instance.started_at = now
        if instance.timeout is not None:
            instance.expires_at = now + instance.timeout
        self._instances[instance.instance_id] = instance
        self.bring_up(instance, origin=source)
        return instance

    def update(self, instance: Instance, *, timeout: int | None, metadata: list[Json] | None) -> None:
        """Restart the countdown and add metadata, of a running instance.

        Metadata is merged: a name that is given replaces that entry, others stay.

        Raises:
            Refusal: when it is not RUNNING, or is persistent and was given a timeout.
        """
        added = metadata_of(metadata)
        self.need(instance, "RUNNING")
        if timeout is not None:
            if instance.persistent:
                raise Refusal("UnsupportedOperation", "A persistent instance has no timeout.")
            self.restart_countdown(instance, timeout)
        if metadata and not self._world.profile.merges_metadata:
            instance.metadata.clear()
        instance.metadata.update(added)
        instance.updated = self._world.clock.now()
        self.keep(instance)

    def load(self, document: Json) -> None:
        """Take an instance from the state directory; one that was alive is started again, with its files."""
        data = dict(document)
        tokens = Tokens(self._world.clock.now, open_to_all=data["auth_mode"] == "NONE")
        tokens.load(data.pop("tokens"))
        lifecycle = Lifecycle(**data.pop("lifecycle"))
        instance = Instance(tokens=tokens, lifecycle=lifecycle, **data)
        self._instances[instance.instance_id] = instance
        self.revive(instance)

    def _origin(self, request: Json) -> tuple[Any, Tool]:
        """Return the snapshot or instance to copy (or None), and the tool."""
        if request.get("SnapshotId") and request.get("SourceInstanceId"):
            raise Refusal("InvalidParameter", "Give SnapshotId or SourceInstanceId, not both.")
        source: Any = None
        if request.get("SnapshotId"):
            source = self._region.snapshots.get(request["SnapshotId"])
        elif request.get("SourceInstanceId"):
            source = self.get(request["SourceInstanceId"])
            if source.status not in ("RUNNING", "PAUSED"):
                raise Refusal(
                    "UnsupportedOperation.SandboxInstance",
                    f"Instance {source.instance_id} is {source.status}; a clone needs RUNNING or PAUSED.",
                )
        tool_id, name = request.get("ToolId"), request.get("ToolName")
        if tool_id:
            tool = self._region.tools.get(tool_id)
            if name and tool.name != name:
                raise Refusal("InvalidParameter", f"ToolId {tool_id} and ToolName {name!r} name different tools.")
        elif name:
            found = self._region.tools.named(name)
            if found is None:
                raise Refusal("ResourceNotFound.SandboxTool", f"Sandbox tool {name!r} does not exist.")
            tool = found
        elif source is not None:
            tool = self._region.tools.get(source.tool_id)
        else:
            raise Refusal("MissingParameter", "The request needs ToolId or ToolName.")
        if tool.status != "ACTIVE":
            reason = f": {tool.status_reason}" if tool.status_reason else ""
            raise Refusal("ResourceUnavailable.SandboxTool", f"Tool {tool.name} is {tool.status}{reason}.")
        return source, tool


def metadata_of(entries: list[Json] | None) -> dict[str, str]:
    """Return metadata entries ``{Name, Value}`` as a mapping.

    Raises:
        Refusal: ``InvalidParameterValue`` for an empty or double name.
    """
    metadata: dict[str, str] = {}
    for entry in entries or []:
        name = entry.get("Name") or ""
        if not name or len(name) > 256:
            raise Refusal("InvalidParameterValue", "A Metadata name must have 1 to 256 characters.")
        if name in metadata:
            raise Refusal("InvalidParameterValue", f"Metadata name {name[:60]!r} is given twice.")
        metadata[name] = entry.get("Value") or ""
    return metadata
