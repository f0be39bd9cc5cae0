"""Checks of snapshots and clones."""

from __future__ import annotations

import time

from ags_flows.cloud.data_planes import open_plane
from ags_flows.models import Snapshot
from ags_flows.verify.account import PREFIX, Account
from ags_flows.verify.check import Group, expect
from ags_flows.verify.watch import watch

GROUP = Group("snapshots", instances=2)


def _snapshot(account: Account) -> Snapshot:
    account.plane().write("verify-saved", account.run.encode())
    began = time.monotonic()
    name = f"{PREFIX}{account.run}"
    snapshot = account.control.create_snapshot(account.instance().id, name=name, client_token=f"{account.run}-snap")
    account.keep_snapshot(snapshot.id)

    def look() -> Snapshot | None:
        found = _found(account, snapshot.id)
        return found if found and found.status == "ACTIVE" else None

    found, seen = watch(look, 120, f"the snapshot {snapshot.id} is not ACTIVE")
    account.sample("snapshot.seconds", seen - began)
    return found


def _found(account: Account, snapshot_id: str) -> Snapshot | None:
    return next((one for one in account.control.list_snapshots() if one.id == snapshot_id), None)


def _saved_in(account: Account, instance_id: str) -> None:
    saved = open_plane(account.connection, instance_id).plane.read("verify-saved")
    expect(saved == account.run.encode(), "other bytes")
    account.release(instance_id)


@GROUP.check
def snapshot_is_made(account: Account) -> str:
    """A snapshot of a running instance becomes ACTIVE, and is listed."""
    account.once("snapshot", lambda: _snapshot(account))
    return f"after {account.answers['snapshot.seconds']:.1f} s"


@GROUP.check
def instance_starts_from_a_snapshot(account: Account) -> None:
    """An instance of a snapshot has its files."""
    snapshot = account.once("snapshot", lambda: _snapshot(account))
    instance = account.running(account.start("from-snapshot", snapshot_id=snapshot.id))
    _saved_in(account, instance.id)


@GROUP.check
def instance_is_cloned(account: Account) -> None:
    """A clone of a running instance has its files."""
    account.plane().write("verify-saved", account.run.encode())
    instance = account.running(account.start("clone", source_instance_id=account.instance().id))
    _saved_in(account, instance.id)


@GROUP.check
def snapshot_is_deleted(account: Account) -> None:
    """A snapshot that is deleted disappears."""
    snapshot = account.once("snapshot", lambda: _snapshot(account))
    account.control.delete_snapshot(snapshot.id)
    began = time.monotonic()
    while (found := _found(account, snapshot.id)) is not None and found.status != "DELETED":
        expect(time.monotonic() - began < 60, f"{found.status} after 60 s")
        time.sleep(0.3)
