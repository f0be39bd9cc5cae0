"""Tools, instances, tokens and snapshots of AGS as typed calls."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import Self

from ags_flows.cloud import wire
from ags_flows.cloud.arguments import check_client_token, check_instance_id, check_metadata, is_tool_id
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.forks import reset_in_children
from ags_flows.cloud.overrides import ignored_overrides, overrides_to_wire
from ags_flows.cloud.paging import by_offset, by_token, chunks, filtered, take
from ags_flows.cloud.quotas import quota_overview, with_usage
from ags_flows.cloud.retry import persistently
from ags_flows.cloud.transport import Transport
from ags_flows.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    UnsupportedError,
)
from ags_flows.models import (
    AccessToken,
    Computer,
    CustomConfiguration,
    Instance,
    MountOption,
    Network,
    QuotaOverview,
    Snapshot,
    Tool,
    ToolSpec,
)
from ags_flows.ownership import ENDED

KEPT_CLIENTS = 32
AUTH_MODES = ("DEFAULT", "TOKEN", "PUBLIC", "NONE")


class ControlPlane:
    """The control plane of one account in one region. Thread-safe and synchronous.

    Every method raises the errors of `ags_flows.cloud.error_mapping`, with code and RequestId. No call is repeated
    here: only the caller knows whether a repetition is safe.
    """

    _known: OrderedDict[Connection, ControlPlane] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, connection: Connection) -> None:
        """Check the keys; nothing is sent.

        Raises:
            CredentialsError: There are no keys.
        """
        self.connection = connection
        self._transport = Transport(connection)
        self._timeout: float | None = None

    @classmethod
    def of(cls, connection: Connection) -> ControlPlane:
        """Return the control plane of a connection, one for all equal ones in this process."""
        with cls._lock:
            plane = cls._known.get(connection)
            if plane is None:
                plane = cls._known[connection] = cls(connection)
            cls._known.move_to_end(connection)
            while len(cls._known) > KEPT_CLIENTS:
                cls._known.popitem(last=False)
            return plane

    def call(self, action: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call any action of AGS with raw parameters: for what is newer than this package."""
        try:
            return self._send(action, dict(parameters or {}))
        except QuotaExceededError as error:
            full = with_usage(self._send, error)
        raise full

    def with_timeout(self, seconds: float) -> Self:
        """Return a view of this control plane with another time limit for each request.

        The view shares connections and pace with this control plane.

        Args:
            seconds: Seconds to connect, and seconds to wait for data.
        """
        view = copy.copy(self)
        view._timeout = seconds
        return view

    def close(self) -> None:
        """Close the connections that are not in use; the next call opens one again."""
        self._transport.close()

    # Tools

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

    # Instances

    def start_instance(
        self,
        *,
        tool: str | None = None,
        timeout: str | int | None = None,
        metadata: Mapping[str, str] | None = None,
        client_token: str | None = None,
        custom: CustomConfiguration | None = None,
        mount_options: Sequence[MountOption] = (),
        auth_mode: str | None = None,
        snapshot_id: str | None = None,
        source_instance_id: str | None = None,
    ) -> Instance:
        """Start an instance of a tool (by id or name), of a snapshot, or as a clone of a live instance.

        Args:
            tool: A tool's id or name.
            timeout: `30s` to `24h`, or seconds; by default the tool's.
            metadata: Names and values to find it by.
            client_token: At most 64 characters; AGS makes no second instance for the same one.
            custom: What it has different from its tool.
            mount_options: Changes to the tool's mounts.
            auth_mode: `TOKEN`, `PUBLIC` (only envd needs the token) or `NONE`.
            snapshot_id: Start from this snapshot.
            source_instance_id: Clone this live instance.

        Returns:
            The instance, often still STARTING.

        Raises:
            ConfigurationError: An argument breaks a rule; nothing was sent.
            UnsupportedError: AGS left out an override; the instance is stopped again.
        """
        if not (tool or snapshot_id or source_instance_id):
            raise ConfigurationError("No tool is given.", hint="Give a tool's id or name, or a snapshot.")
        if auth_mode is not None and auth_mode not in AUTH_MODES:
            raise ConfigurationError(f"auth_mode={auth_mode!r} is unknown.", hint=f"Known: {', '.join(AUTH_MODES)}.")
        named = {} if not tool else {"ToolId" if is_tool_id(tool) else "ToolName": tool}
        parameters = wire.present(
            **named,
            Timeout=wire.timeout_to_wire(timeout),
            Metadata=wire.pairs(check_metadata(metadata)),
            ClientToken=check_client_token(client_token),
            MountOptions=[wire.mount_option_to_wire(option) for option in mount_options],
            SnapshotId=snapshot_id,
            SourceInstanceId=check_instance_id(source_instance_id) if source_instance_id else None,
            **overrides_to_wire(custom, auth_mode),
        )
        answer = self.call("StartSandboxInstance", parameters)
        started = wire.part(answer, "StartSandboxInstance", "Instance")
        self._refuse_ignored(parameters, started)
        return wire.instance_from_wire(started)

    def check_overrides(
        self, instance_id: str, *, custom: CustomConfiguration | None = None, auth_mode: str | None = None
    ) -> None:
        """Check that an instance has its overrides, for a caller that did not see the response to its start.

        Raises:
            UnsupportedError: AGS left out an override; the instance is stopped.
        """
        asked = overrides_to_wire(custom, auth_mode)
        if not asked:
            return
        for listed in by_token(self.call, "DescribeSandboxInstanceList", {"InstanceIds": [instance_id]}, "InstanceSet"):
            self._refuse_ignored(asked, listed)

    def _refuse_ignored(self, asked: dict[str, Any], shown: dict[str, Any]) -> None:
        if ignored := ignored_overrides(asked, shown):
            instance_id = shown["InstanceId"]
            persistently(lambda: self.stop_instance(instance_id))
            raise UnsupportedError(
                f"AGS started instance {instance_id} without {ignored}. It was stopped.",
                hint="Put it into the tool instead: create or update one with these fields.",
            )

    def get_instance(self, instance_id: str) -> Instance:
        """Return an instance as it is now; ended ones stay known for a while.

        Raises:
            NotFoundError: AGS does not know it.
        """
        found = self.list_instances(ids=[instance_id])
        if not found:
            raise NotFoundError(
                f"There is no instance {instance_id!r} in region {self.connection.region}.",
                hint="It may have ended some time ago; check the id and the region.",
                code="ResourceNotFound.SandboxInstance",
            )
        return found[0]

    def list_instances(
        self,
        *,
        ids: Sequence[str] | None = None,
        tool: str | None = None,
        status: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Instance]:
        """Return the instances, all of them unless `limit` is given; conditions must all hold.

        `tool` is an id or a name, also of a tool that is gone. AGS has no filter for metadata: those are compared
        here. RUNNING instances that AGS finds UNHEALTHY are listed for either state.
        """
        wanted = dict(metadata or {})
        by_id = tool is not None and is_tool_id(tool)
        conditions = wire.present(Status=status, ToolName=None if by_id else tool)
        filters = [{"Name": key, "Values": [value]} for key, value in conditions.items()]
        shown = {status, "UNHEALTHY"} if status == "RUNNING" else {status}

        def matches(instance: Instance) -> bool:
            return (
                wanted.items() <= instance.metadata.items()
                and (tool is None or tool == (instance.tool_id if by_id else instance.tool_name))
                and (status is None or instance.status in shown)
            )

        def read(kept: list[dict[str, Any]]) -> list[Instance]:
            return take(filter(matches, self._instances(kept, ids, tool if by_id else None)), limit)

        return filtered(filters, read)

    def each_instance(self) -> Iterator[Instance]:
        """Give the instances one by one, ended ones too: a page is read when it is needed, and none is kept."""
        return self._instances([], None, None)

    def update_instance(
        self, instance_id: str, *, timeout: str | int | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Restart the countdown of the timeout, or add metadata.

        Raises:
            ConfigurationError: Neither is given.
            ConflictError: The instance is not RUNNING.
        """
        changes = wire.present(Timeout=wire.timeout_to_wire(timeout), Metadata=wire.pairs(check_metadata(metadata)))
        if not changes:
            raise ConfigurationError("Nothing to update.", hint="Give a timeout, or metadata.")
        self.call("UpdateSandboxInstance", {"InstanceId": check_instance_id(instance_id), **changes})

    def pause_instance(self, instance_id: str, *, memory: bool = True) -> None:
        """Pause an instance; it becomes PAUSED later. Without `memory` only its disk is kept."""
        self.call("PauseSandboxInstance", {"InstanceId": check_instance_id(instance_id), "Memory": memory})

    def resume_instance(self, instance_id: str, *, timeout: str | int | None = None) -> None:
        """Resume a paused instance; without a timeout AGS gives it five minutes."""
        named = {"InstanceId": check_instance_id(instance_id)}
        parameters = {**named, **wire.present(Timeout=wire.timeout_to_wire(timeout))}
        self.call("ResumeSandboxInstance", parameters)

    def stop_instance(self, instance_id: str) -> None:
        """Stop an instance for good. One that is stopped, stopping or unknown is a success."""
        named = {"InstanceId": check_instance_id(instance_id)}
        try:
            self.call("StopSandboxInstance", named)
        except NotFoundError:
            return
        except (ConflictError, InvalidRequestError):
            # The response of AGS to a second stop is not documented: the state decides.
            known = self.list_instances(ids=[instance_id])
            if known and known[0].status not in ENDED:
                raise

    def acquire_token(self, instance_id: str) -> AccessToken:
        """Return an access token for one instance's data plane."""
        fields = self.call("AcquireSandboxInstanceToken", {"InstanceId": check_instance_id(instance_id)})
        wire.part(fields, "AcquireSandboxInstanceToken", "Token")
        return wire.token_from_wire(instance_id, fields)

    # Snapshots and quotas

    def create_snapshot(
        self,
        instance_id: str,
        *,
        name: str,
        memory: bool = False,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
    ) -> Snapshot:
        """Save an instance's disk, and its memory if asked."""
        parameters = {
            "InstanceId": check_instance_id(instance_id),
            "SnapshotName": name,
            "Memory": memory,
            **wire.present(Tags=wire.pairs(tags or {}, "Key"), ClientToken=check_client_token(client_token)),
        }
        answer = self.call("CreateSandboxSnapshot", parameters)
        return wire.snapshot_from_wire(wire.part(answer, "CreateSandboxSnapshot", "Snapshot"))

    def list_snapshots(self) -> list[Snapshot]:
        """Return all snapshots."""
        listed = by_token(self.call, "DescribeSandboxSnapshotList", {}, "SnapshotSet")
        return [wire.snapshot_from_wire(fields) for fields in listed]

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; one that is gone already is a success."""
        try:
            self.call("DeleteSandboxSnapshot", {"SnapshotId": snapshot_id})
        except NotFoundError:
            return

    def quotas(self) -> QuotaOverview:
        """Return quotas and usage of the account in this region."""
        return quota_overview(self.call)

    @classmethod
    def _reset_after_fork(cls) -> None:
        cls._lock = threading.Lock()

    def _send(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return self._transport.call(action, parameters, self._timeout)

    def _tools(self, filters: list[dict[str, Any]], ids: Sequence[str] | None) -> Iterator[Tool]:
        for chunk in chunks(ids):
            parameters = wire.present(Filters=filters, ToolIds=chunk)
            for fields in by_offset(self.call, "DescribeSandboxToolList", parameters, "SandboxToolSet"):
                yield wire.tool_from_wire(fields)

    def _instances(
        self, filters: list[dict[str, Any]], ids: Sequence[str] | None, tool_id: str | None
    ) -> Iterator[Instance]:
        for instance_id in ids or ():
            check_instance_id(instance_id)
        for chunk in chunks(ids):
            parameters = wire.present(Filters=filters, InstanceIds=chunk, ToolId=tool_id)
            for fields in by_token(self.call, "DescribeSandboxInstanceList", parameters, "InstanceSet"):
                yield wire.instance_from_wire(fields)


reset_in_children(ControlPlane._reset_after_fork)
