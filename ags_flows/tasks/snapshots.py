"""Tasks for snapshots of instances (a beta of AGS)."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.lifecycle.create_once import create_snapshot_once
from ags_flows.models import Instance, Snapshot
from ags_flows.run.events import tell_snapshot
from ags_flows.run.holder import identify
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.instances import instance_id


@sandbox_task("snapshot", "instance")
def create_snapshot(
    instance: Instance | str,
    name: str,
    memory: bool = False,
    tags: Mapping[str, str] | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> Snapshot:
    """Save an instance's disk, and its memory if asked, under a name. Start from it with `snapshot_id`.

    A retry gets the snapshot that an earlier attempt made of the same instance. Tags of this package are added to
    yours: the reaper can delete such snapshots when they are old.

    Example:
        ```python
        snapshot = create_snapshot(instance, "before-the-migration")
        delete_snapshot(snapshot)
        ```
    """
    control = resolve_config(config).control_plane()
    reference = instance_id(instance)
    made = identify("create_snapshot", {"name": name, "memory": memory}, step=step)
    snapshot = create_snapshot_once(control, made, reference, name=name, memory=memory, tags=dict(tags or {}))
    tell_snapshot("created", snapshot, instance=reference, name=name)
    return snapshot


@sandbox_task("list snapshots", "instance")
def list_snapshots(instance: Instance | str | None = None, config: AGSConfig | str | None = None) -> list[Snapshot]:
    """Return all snapshots, or those of one instance.

    Example:
        ```python
        print([snapshot.name for snapshot in list_snapshots()])
        ```
    """
    known = resolve_config(config).control_plane().list_snapshots()
    return known if instance is None else [one for one in known if one.instance_id == instance_id(instance)]


@sandbox_task("delete snapshot", "snapshot")
def delete_snapshot(snapshot: Snapshot | str, config: AGSConfig | str | None = None) -> None:
    """Delete a snapshot. One that is gone already is a success.

    Example:
        ```python
        delete_snapshot(create_snapshot(instance, "short-lived"))
        ```
    """
    reference = snapshot.id if isinstance(snapshot, Snapshot) else snapshot
    resolve_config(config).control_plane().delete_snapshot(reference)
    tell_snapshot("deleted", reference)
