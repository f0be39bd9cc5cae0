"""Instances of AGS, and their access tokens, as typed calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ags_flows.cloud import wire
from ags_flows.cloud.arguments import check_client_token, is_tool_id
from ags_flows.cloud.calls import Calls
from ags_flows.cloud.overrides import ignored_overrides, overrides_to_wire
from ags_flows.cloud.paging import by_token, chunks, filtered, take
from ags_flows.cloud.retry import persistently
from ags_flows.errors import ConfigurationError, ConflictError, InvalidRequestError, NotFoundError, UnsupportedError
from ags_flows.models import AccessToken, CustomConfiguration, Instance, MountOption
from ags_flows.models.checks import check_instance_id, check_texts
from ags_flows.ownership import ENDED

AUTH_MODES = ("DEFAULT", "TOKEN", "PUBLIC", "NONE")


class Instances(Calls):
    """The part of `ControlPlane` that is about instances."""

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
            Metadata=wire.pairs(check_texts(metadata or {}, "metadata")),
            ClientToken=check_client_token(client_token),
            MountOptions=[wire.mount_option_to_wire(option) for option in mount_options],
            SnapshotId=snapshot_id,
            SourceInstanceId=check_instance_id(source_instance_id, "source_instance_id")
            if source_instance_id
            else None,
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
        """Return the instances one by one, ended ones too. A page is read when it is needed, and is not kept."""
        return self._instances([], None, None)

    def update_instance(
        self, instance_id: str, *, timeout: str | int | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Restart the countdown of the timeout, or add metadata.

        Raises:
            ConfigurationError: Neither is given.
            ConflictError: The instance is not RUNNING.
        """
        changes = wire.present(
            Timeout=wire.timeout_to_wire(timeout), Metadata=wire.pairs(check_texts(metadata or {}, "metadata"))
        )
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
        """Stop an instance permanently. One that is stopped, stopping or unknown is a success."""
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

    def _instances(
        self, filters: list[dict[str, Any]], ids: Sequence[str] | None, tool_id: str | None
    ) -> Iterator[Instance]:
        for instance_id in ids or ():
            check_instance_id(instance_id)
        for chunk in chunks(ids):
            parameters = wire.present(Filters=filters, InstanceIds=chunk, ToolId=tool_id)
            for fields in by_token(self.call, "DescribeSandboxInstanceList", parameters, "InstanceSet"):
                yield wire.instance_from_wire(fields)
