"""The control plane of AGS: tools, instances, tokens, snapshots and quotas as typed calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from ags_flows.cloud import wire
from ags_flows.cloud.arguments import check_client_token
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.forks import reset_in_children
from ags_flows.cloud.instances import Instances
from ags_flows.cloud.paging import by_token
from ags_flows.cloud.quotas import quota_overview
from ags_flows.cloud.tools import Tools
from ags_flows.errors import NotFoundError
from ags_flows.models import QuotaOverview, Snapshot
from ags_flows.models.checks import check_instance_id

KEPT_CLIENTS = 32


class ControlPlane(Tools, Instances):
    """The control plane of one account in one region. Thread-safe and synchronous. See `Calls` for the errors."""

    _known: OrderedDict[Connection, ControlPlane] = OrderedDict()
    _lock = threading.Lock()

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


reset_in_children(ControlPlane._reset_after_fork)
