"""Tools, instances, tokens and snapshots of AGS as typed calls."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ags_flows.cloud import wire
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.transport import Transport
from ags_flows.errors import ConfigurationError, ConflictError, InvalidRequestError, NotFoundError
from ags_flows.models import (
    TOOL_NAME,
    AccessToken,
    CustomConfiguration,
    Instance,
    MountOption,
    Network,
    Snapshot,
    Tool,
    ToolSpec,
)

R = TypeVar("R")

PAGE = 100
"""The most items that AGS gives at once, and the most ids that one request may name."""

LAST_OFFSET = 10_000
"""Paging by offset ends here."""

KEPT_CLIENTS = 32


class ControlPlane:
    """The control plane of one account in one region. Thread-safe and synchronous.

    Every method raises the errors of `ags_flows.cloud.error_mapping`, with code and RequestId. No call is repeated
    in here: whoever retries knows what a repetition means.
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
        return self._transport.call(action, dict(parameters or {}))

    # Tools

    def create_tool(self, spec: ToolSpec, *, client_token: str | None = None) -> str:
        """Create a tool and return its id. It becomes ACTIVE, or FAILED, later."""
        parameters = {**wire.tool_to_wire(spec), **wire.present(ClientToken=client_token)}
        return str(self.call("CreateSandboxTool", parameters)["ToolId"])

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

        AGS has changed its filters before: what it answers is checked again here, and a filter by name that it
        refuses is replaced by reading all.
        """
        if ids is not None and not ids:
            return []
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

        try:
            return _take(filter(matches, self._tools(filters, ids)), limit)
        except InvalidRequestError as error:
            if not filters or error.code not in ("InvalidParameter.Filters", "InvalidParameter"):
                raise
            return _take(filter(matches, self._tools([], ids)), limit)

    def update_tool(
        self,
        tool_id: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        network: Network | None = None,
        custom: CustomConfiguration | None = None,
    ) -> None:
        """Change what AGS lets change: description, tags (replaced as a whole), network, container."""
        parameters: dict[str, Any] = {"ToolId": tool_id}
        if description is not None:
            parameters["Description"] = description
        if tags is not None:
            parameters["Tags"] = wire.pairs(tags, "Key")
        if network is not None:
            parameters["NetworkConfiguration"] = wire.network_to_wire(network)
        if custom is not None:
            parameters["CustomConfiguration"] = wire.custom_to_wire(custom)
        if len(parameters) == 1:
            raise ConfigurationError(
                "Nothing to update.", hint="Give description, tags, network or custom; the rest is fixed for good."
            )
        self.call("UpdateSandboxTool", parameters)

    def delete_tool(self, tool: str) -> None:
        """Delete a tool by id or name; one that is gone already is a success."""
        try:
            tool_id = tool if is_tool_id(tool) else self.get_tool(tool).id
            self.call("DeleteSandboxTool", {"ToolId": tool_id})
        except NotFoundError:
            return

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
        """Start an instance of a tool (by id or name), of a snapshot, or as a clone of a live instance."""
        if not (tool or snapshot_id or source_instance_id):
            raise ConfigurationError("No tool is given.", hint="Give a tool's id or name, or a snapshot.")
        named = {} if not tool else {"ToolId" if is_tool_id(tool) else "ToolName": tool}
        parameters = wire.present(
            **named,
            Timeout=wire.timeout_to_wire(timeout),
            Metadata=wire.pairs(metadata or {}),
            ClientToken=client_token,
            CustomConfiguration=wire.custom_to_wire(custom) if custom else None,
            MountOptions=[wire.mount_option_to_wire(option) for option in mount_options],
            AuthMode=auth_mode,
            SnapshotId=snapshot_id,
            SourceInstanceId=source_instance_id,
        )
        return wire.instance_from_wire(self.call("StartSandboxInstance", parameters)["Instance"])

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

        AGS has no filter for metadata: those are compared here.
        """
        if ids is not None and not ids:
            return []
        wanted = dict(metadata or {})
        tool_id = self.get_tool(tool).id if tool and not is_tool_id(tool) else tool
        filters = [{"Name": "Status", "Values": [status]}] if status else []

        def matches(instance: Instance) -> bool:
            return wanted.items() <= instance.metadata.items()

        return _take(filter(matches, self._instances(filters, ids, tool_id)), limit)

    def update_instance(
        self, instance_id: str, *, timeout: str | int | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Restart the countdown of the timeout, or change metadata. Only RUNNING instances can be changed."""
        parameters = wire.present(
            InstanceId=instance_id, Timeout=wire.timeout_to_wire(timeout), Metadata=wire.pairs(metadata or {})
        )
        self.call("UpdateSandboxInstance", parameters)

    def pause_instance(self, instance_id: str, *, memory: bool = True) -> None:
        """Pause an instance; it becomes PAUSED later. Without `memory` only its disk is kept."""
        self.call("PauseSandboxInstance", {"InstanceId": instance_id, "Memory": memory})

    def resume_instance(self, instance_id: str, *, timeout: str | int | None = None) -> None:
        """Resume a paused instance; without a timeout AGS gives it five minutes."""
        parameters = wire.present(InstanceId=instance_id, Timeout=wire.timeout_to_wire(timeout))
        self.call("ResumeSandboxInstance", parameters)

    def stop_instance(self, instance_id: str) -> None:
        """Stop an instance for good. One that is stopped, stopping or unknown is a success."""
        try:
            self.call("StopSandboxInstance", {"InstanceId": instance_id})
        except NotFoundError:
            return
        except (ConflictError, InvalidRequestError):
            # What AGS answers to a second stop is not documented: the state decides.
            known = self.list_instances(ids=[instance_id])
            if known and known[0].status not in ("STOPPING", "STOPPED", "FAILED", "STARTING_FAILED"):
                raise

    def acquire_token(self, instance_id: str) -> AccessToken:
        """Return an access token for one instance's data plane."""
        fields = self.call("AcquireSandboxInstanceToken", {"InstanceId": instance_id})
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
            "InstanceId": instance_id,
            "SnapshotName": name,
            "Memory": memory,
            **wire.present(Tags=wire.pairs(tags or {}, "Key"), ClientToken=client_token),
        }
        return wire.snapshot_from_wire(self.call("CreateSandboxSnapshot", parameters)["Snapshot"])

    def list_snapshots(self) -> list[Snapshot]:
        """Return all snapshots."""
        pages = self._by_token("DescribeSandboxSnapshotList", {}, "SnapshotSet")
        return [wire.snapshot_from_wire(fields) for fields in pages]

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; one that is gone already is a success."""
        try:
            self.call("DeleteSandboxSnapshot", {"SnapshotId": snapshot_id})
        except NotFoundError:
            return

    def quotas(self) -> dict[str, Any]:
        """Return quota and usage as AGS's DescribeQuotaOverview gives them."""
        return self.call("DescribeQuotaOverview")

    def _tools(self, filters: list[dict[str, Any]], ids: Sequence[str] | None) -> Iterator[Tool]:
        for chunk in _chunks(ids):
            offset = 0
            while offset <= LAST_OFFSET:
                parameters = wire.present(Filters=filters, ToolIds=chunk, Limit=PAGE)
                page = self.call("DescribeSandboxToolList", {**parameters, "Offset": offset})
                items = page.get("SandboxToolSet") or []
                yield from (wire.tool_from_wire(fields) for fields in items)
                offset += len(items)
                if len(items) < PAGE:
                    break

    def _instances(
        self, filters: list[dict[str, Any]], ids: Sequence[str] | None, tool_id: str | None
    ) -> Iterator[Instance]:
        for chunk in _chunks(ids):
            parameters = wire.present(Filters=filters, InstanceIds=chunk, ToolId=tool_id)
            for fields in self._by_token("DescribeSandboxInstanceList", parameters, "InstanceSet"):
                yield wire.instance_from_wire(fields)

    def _by_token(self, action: str, parameters: dict[str, Any], field: str) -> Iterator[dict[str, Any]]:
        """Read all pages by NextToken, which has no last offset and is not disturbed by what comes and goes."""
        token: str | None = None
        while True:
            page = self.call(action, {**parameters, "MaxResults": PAGE, **wire.present(NextToken=token)})
            yield from page.get(field) or []
            token = page.get("NextToken") or None
            if token is None:
                return


def is_tool_id(tool: str) -> bool:
    """Whether a reference is an id: `sdt-` and lower-case letters and digits. Names may not begin so."""
    if not TOOL_NAME.fullmatch(tool):
        raise ConfigurationError(
            f"{tool!r} is neither a tool's id nor a tool's name.",
            hint="Names have 1 to 50 letters, digits, '_' or '-'; ids begin with 'sdt-'.",
        )
    return tool.startswith("sdt-")


def _chunks(ids: Sequence[str] | None) -> Iterator[list[str]]:
    if ids is None:
        yield []
        return
    for start in range(0, len(ids), PAGE):
        yield list(ids[start : start + PAGE])


def _take(items: Iterator[R], limit: int | None) -> list[R]:
    return list(itertools.islice(items, limit))
