"""Snapshots: the files of an instance, kept to start others from. Memory is not kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.removal import remove_tree
from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import check_tags
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.transitions import StepFailed

if TYPE_CHECKING:
    from ags_flows.emulator.world.region import Region

Json = dict[str, Any]


@dataclass
class Snapshot:
    """One snapshot, with what is needed to start an instance like its source."""

    snapshot_id: str
    number: int
    region: str
    name: str
    source_instance_id: str
    tool_id: str
    created: float
    updated: float
    memory: bool = False
    status: str = "ACTIVE"
    tags: list[Json] = field(default_factory=list)
    custom_over: Json | None = None
    e2b: Json = field(default_factory=dict)

    def shown(self) -> Json:
        """Return the snapshot as ``SandboxSnapshot`` of the Cloud API."""
        return {
            "SnapshotId": self.snapshot_id,
            "SnapshotName": self.name,
            "SourceInstanceId": self.source_instance_id,
            "MemoryIncluded": self.memory,
            "Status": self.status,
            "StatusReason": "The emulator keeps the files, not the memory." if self.memory else "",
            "Tags": self.tags,
            "CreateTime": iso(self.created),
            "UpdateTime": iso(self.updated),
        }


class Snapshots:
    """The snapshots of one region."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._world = region.world
        self._snapshots: dict[str, Snapshot] = {}

    def __iter__(self) -> Iterator[Snapshot]:
        """Iterate over the snapshots, newest first."""
        return iter(sorted(self._snapshots.values(), key=lambda snapshot: -snapshot.number))

    async def create(
        self, instance_id: str | None, name: str | None, *, memory: bool = False, tags: list[Json] | None = None
    ) -> Snapshot:
        """Keep the files of a running or paused instance, which is frozen during the copy.

        Raises:
            Refusal: when there is no such instance, it has no files, or the name or tags are not valid.
        """
        instance = self._region.instances.get(instance_id)
        if instance.status not in ("RUNNING", "PAUSED"):
            raise Refusal(
                "UnsupportedOperation.SandboxInstance",
                f"Instance {instance.instance_id} is {instance.status}; a snapshot needs RUNNING or PAUSED.",
            )
        if name is not None and len(name) > 128:
            raise Refusal("InvalidParameterValue", "SnapshotName must have at most 128 characters.")
        tags = check_tags(tags)
        now = self._world.clock.now()
        snapshot_id = f"snapshot-{uuid.uuid4()}"
        try:
            await self._world.transitions.begin("snapshot.create").wait()
        except StepFailed as failed:
            raise Refusal("FailedOperation", str(failed)) from failed
        await self._region.instances.power.save(instance, self.directory(snapshot_id))
        snapshot = Snapshot(
            snapshot_id,
            self._world.next_number(),
            self._region.name,
            name or "",
            instance.instance_id,
            instance.tool_id,
            now,
            now,
            memory=memory,
            tags=tags,
            custom_over=instance.custom_over,
            e2b=dict(instance.e2b),
        )
        self._snapshots[snapshot_id] = snapshot
        self._world.store.put("snapshots", snapshot_id, asdict(snapshot))
        return snapshot

    async def delete(self, snapshot_id: str | None) -> None:
        """Delete a snapshot and its files.

        Raises:
            Refusal: ``ResourceNotFound`` when there is none.
        """
        snapshot = self.get(snapshot_id)
        snapshot.status = "DELETING"
        del self._snapshots[snapshot.snapshot_id]
        self._world.store.drop("snapshots", snapshot.snapshot_id)
        await asyncio.to_thread(remove_tree, self.directory(snapshot.snapshot_id))

    def get(self, snapshot_id: str | None) -> Snapshot:
        """Return a snapshot by its id.

        Raises:
            Refusal: ``ResourceNotFound`` when there is none.
        """
        if not snapshot_id:
            raise Refusal("MissingParameter", "The request is missing a required parameter `SnapshotId`.")
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None:
            raise Refusal("ResourceNotFound", f"Sandbox snapshot {snapshot_id} does not exist.")
        return snapshot

    def find(self, name_or_id: str) -> Snapshot | None:
        """Return a snapshot by its id or name, the newest first, or None."""
        return self._snapshots.get(name_or_id) or next((each for each in self if each.name == name_or_id), None)

    def directory(self, snapshot_id: str) -> Path:
        """Return where a snapshot's files are."""
        return self._world.settings.directory / "snapshots" / snapshot_id

    def load(self, document: Json) -> None:
        """Take a snapshot from the state directory, unless its files are gone."""
        snapshot = Snapshot(**document)
        if self.directory(snapshot.snapshot_id).exists():
            self._snapshots[snapshot.snapshot_id] = snapshot
