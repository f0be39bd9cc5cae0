"""Sandboxes, snapshots and templates as E2B's API shows them."""

from __future__ import annotations

from typing import Any

from ags_flows.emulator.e2b.custom_config import shown_metadata
from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import detail, kibibytes, milli_cpus
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.snapshots import Snapshot
from ags_flows.emulator.world.tool import Tool

Json = dict[str, Any]

_STATES = {
    "STARTING": "running",
    "RUNNING": "running",
    "UNHEALTHY": "running",
    "PAUSING": "running",
    "PAUSED": "paused",
    "RESUMING": "paused",
}
"""The statuses in which E2B's API knows a sandbox; in all others it is gone."""

_STATUS_OF = (
    ("ResourceNotFound", 404),
    ("InvalidParameter", 400),
    ("MissingParameter", 400),
    ("UnknownParameter", 400),
    ("UnsupportedRegion", 400),
    ("LimitExceeded", 429),
    ("RequestLimitExceeded", 429),
    ("AuthFailure", 401),
    ("UnauthorizedOperation", 401),
    ("ResourceInUse", 409),
    ("UnsupportedOperation.SandboxInstance", 409),
    ("UnsupportedOperation", 501),
    ("FailedOperation.DuplicateRequest", 409),
    ("FailedOperation.RequestInProgress", 409),
    ("ResourceUnavailable", 400),
)


def status_of(refusal: Refusal) -> int:
    """Return the HTTP status of a `Refusal`."""
    return next((status for code, status in _STATUS_OF if refusal.code.startswith(code)), 500)


def state_of(instance: Instance) -> str | None:
    """Return ``running`` or ``paused``, or None when it is gone."""
    return _STATES.get(instance.status)


def connection(instance: Instance, envd_version: str, domain: str | None) -> Json:
    """Return what a client needs to use a sandbox."""
    shown: Json = {
        "templateID": instance.tool_id,
        "sandboxID": instance.instance_id,
        "clientID": "emulator",
        "alias": instance.tool_name,
        "envdVersion": envd_version,
        "trafficAccessToken": instance.tokens.traffic if instance.auth_mode in ("DEFAULT", "TOKEN") else None,
        "domain": domain,
    }
    if instance.auth_mode != "NONE":
        shown["envdAccessToken"] = instance.tokens.main
    return shown


def listed(instance: Instance, envd_version: str) -> Json:
    """Return a sandbox as it is listed."""
    resources = (detail(instance.custom) or {}).get("Resources") or {}
    end = instance.expires_at
    if end is None:
        # Persistent and paused sandboxes have no end; the API has no value for that.
        end = instance.updated if instance.status == "PAUSED" else instance.started_at + 365 * 86400
    return {
        "templateID": instance.tool_id,
        "alias": instance.tool_name,
        "sandboxID": instance.instance_id,
        "clientID": "emulator",
        "startedAt": iso(instance.started_at),
        "endAt": iso(end),
        "cpuCount": max(1, milli_cpus(resources.get("CPU") or "2") // 1000),
        "memoryMB": kibibytes(resources.get("Memory") or "512Mi", "Memory") // 1024,
        "diskSizeMB": kibibytes(resources.get("Storage") or "5Gi", "Storage") // 1024,
        "metadata": shown_metadata(instance),
        "state": state_of(instance),
        "envdVersion": envd_version,
        "volumeMounts": instance.e2b.get("volumeMounts") or [],
    }


def detailed(instance: Instance, envd_version: str, domain: str | None) -> Json:
    """Return a sandbox with all that is known of it."""
    shown = listed(instance, envd_version)
    shown["domain"] = domain
    shown["allowInternetAccess"] = instance.e2b.get("allowInternetAccess")
    shown["network"] = instance.e2b.get("network") or {}
    shown["lifecycle"] = {
        "autoResume": instance.lifecycle.auto_resume,
        "onTimeout": "pause" if instance.lifecycle.auto_pause else "kill",
    }
    if instance.status == "PAUSED":
        shown["pauseMode"] = "full" if instance.paused_memory else "filesystem"
    if instance.auth_mode != "NONE":
        shown["envdAccessToken"] = instance.tokens.main
    return shown


def snapshot_info(snapshot: Snapshot) -> Json:
    """Return a snapshot."""
    return {"snapshotID": snapshot.snapshot_id, "names": [snapshot.name] if snapshot.name else []}


def template_info(tool: Tool, envd_version: str, spawned: int) -> Json:
    """Return a tool as a template."""
    resources = (detail(tool.custom) or {}).get("Resources") or {}
    built = {"CREATING": "building", "ACTIVE": "ready"}.get(tool.status, "error")
    return {
        "templateID": tool.tool_id,
        "buildID": "00000000-0000-0000-0000-000000000000",
        "cpuCount": max(1, milli_cpus(resources.get("CPU") or "2") // 1000),
        "memoryMB": kibibytes(resources.get("Memory") or "512Mi", "Memory") // 1024,
        "diskSizeMB": kibibytes(resources.get("Storage") or "5Gi", "Storage") // 1024,
        "public": False,
        "aliases": [tool.name],
        "names": [tool.name],
        "createdAt": iso(tool.created),
        "updatedAt": iso(tool.updated),
        "createdBy": None,
        "lastSpawnedAt": None,
        "spawnCount": spawned,
        "buildCount": 1,
        "envdVersion": envd_version,
        "buildStatus": built,
    }
