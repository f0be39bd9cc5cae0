"""Our values as parameters of the Cloud API, and its answers as our values.

Field names are those of API version 2025-09-20. Answers are read tolerantly: unknown states and fields, empty and
missing values, times with `Z` or an offset and up to nine digits of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import SecretStr

from ags_flows.durations import format_duration, parse_duration
from ags_flows.errors import ConfigurationError
from ags_flows.models import (
    AccessToken,
    CfsSource,
    CosSource,
    CustomConfiguration,
    ImageSource,
    Instance,
    MountOption,
    Network,
    Port,
    Probe,
    Resources,
    Snapshot,
    StorageMount,
    Tool,
    ToolSpec,
)

Fields = dict[str, Any]

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?")


def pairs(values: Mapping[str, str], name: str = "Name") -> list[Fields]:
    """Return a mapping as the API's list of names (or keys) and values."""
    return [{name: key, "Value": value} for key, value in values.items()]


def present(**fields: Any) -> Fields:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, [], {}, "")}


def timeout_to_wire(timeout: str | int | None) -> str | None:
    """Return a timeout in seconds as the API takes it."""
    return None if timeout is None else format_duration(parse_duration(timeout))


def tool_to_wire(spec: ToolSpec) -> Fields:
    """Return the parameters of CreateSandboxTool.

    Raises:
        ConfigurationError: A tool of type `custom` has no image.
    """
    custom: Fields | None = None
    if spec.type == "custom":
        if not spec.image:
            raise ConfigurationError(f"Tool {spec.name!r} has no image.", hint="Give image=..., such as 'python:3.11'.")
        custom = container_to_wire(
            spec.image,
            spec.image_registry_type or "enterprise",
            spec.command,
            spec.args,
            spec.env,
            spec.ports,
            spec.resources,
            spec.probe,
        )
    elif spec.resources != Resources():
        custom = {"Resources": resources_to_wire(spec.resources)}
    return present(
        ToolName=spec.name,
        ToolType=spec.type,
        NetworkConfiguration=network_to_wire(spec.network),
        Description=spec.description,
        DefaultTimeout=timeout_to_wire(spec.default_timeout),
        Tags=pairs(spec.tags, "Key"),
        RoleArn=spec.role_arn,
        StorageMounts=[mount_to_wire(mount) for mount in spec.mounts],
        CustomConfiguration=custom,
        Persistent=spec.persistent or None,
    )


def custom_to_wire(custom: CustomConfiguration) -> Fields:
    """Return the CustomConfiguration of one instance."""
    return container_to_wire(
        custom.image,
        custom.image_registry_type,
        custom.command,
        custom.args,
        custom.env,
        custom.ports,
        custom.resources,
        custom.probe,
    )


def container_to_wire(
    image: str | None,
    registry_type: str | None,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    ports: Sequence[Port],
    resources: Resources | None,
    probe: Probe | None,
) -> Fields:
    """Return a CustomConfiguration; it means the same on a tool and on an instance."""
    return present(
        Image=image,
        ImageRegistryType=registry_type,
        Command=list(command),
        Args=list(args),
        Env=pairs(env),
        Ports=[{"Name": port.name, "Port": port.port, "Protocol": port.protocol} for port in ports],
        Resources=resources_to_wire(resources) if resources else None,
        Probe=probe_to_wire(probe) if probe else None,
    )


def resources_to_wire(resources: Resources) -> Fields:
    """Return ResourceConfiguration."""
    return present(CPU=resources.cpu, Memory=resources.memory, Storage=resources.storage)


def probe_to_wire(probe: Probe) -> Fields:
    """Return ProbeConfiguration."""
    return {
        "HttpGet": {"Path": probe.path, "Port": probe.port, "Scheme": probe.scheme},
        "ReadyTimeoutMs": probe.ready_timeout_ms,
        "ProbeTimeoutMs": probe.timeout_ms,
        "ProbePeriodMs": probe.period_ms,
        "SuccessThreshold": probe.success_threshold,
        "FailureThreshold": probe.failure_threshold,
    }


def network_to_wire(network: Network) -> Fields:
    """Return NetworkConfiguration."""
    vpc = present(SubnetIds=list(network.subnet_ids), SecurityGroupIds=list(network.security_group_ids))
    return present(NetworkMode=network.mode, VpcConfig=vpc)


def mount_to_wire(mount: StorageMount) -> Fields:
    """Return StorageMount with its source."""
    source = mount.source
    storage: Fields
    if isinstance(source, ImageSource):
        storage = {
            "Image": present(
                Reference=source.image, ImageRegistryType=source.image_registry_type, SubPath=source.subpath
            )
        }
    elif isinstance(source, CosSource):
        storage = {"Cos": present(Endpoint=source.endpoint, BucketName=source.bucket, BucketPath=source.path)}
    else:
        assert isinstance(source, CfsSource)
        storage = {"Cfs": present(FileSystemId=source.file_system_id, Path=source.path)}
    return {
        "Name": mount.name,
        "MountPath": mount.mount_path,
        "ReadOnly": mount.readonly,
        "StorageSource": storage,
    }


def mount_option_to_wire(option: MountOption) -> Fields:
    """Return MountOption."""
    return present(Name=option.name, MountPath=option.mount_path, SubPath=option.subpath, ReadOnly=option.readonly)


def tool_from_wire(fields: Fields) -> Tool:
    """Return a tool; system tags (prefix `qcs`) are AGS's own and are left out."""
    custom = fields.get("CustomConfiguration") or {}
    network = fields.get("NetworkConfiguration") or {}
    tags = {tag["Key"]: tag.get("Value") or "" for tag in fields.get("Tags") or [] if tag.get("Key")}
    return Tool(
        id=fields["ToolId"],
        name=fields.get("ToolName") or "",
        type=fields.get("ToolType") or "custom",
        status=fields.get("Status") or "UNKNOWN",
        status_reason=fields.get("StatusReason") or None,
        image=custom.get("Image") or None,
        description=fields.get("Description") or "",
        tags={key: value for key, value in tags.items() if not key.startswith("qcs")},
        network_mode=network.get("NetworkMode") or None,
        role_arn=fields.get("RoleArn") or None,
        persistent=bool(fields.get("Persistent")),
        default_timeout=fields.get("DefaultTimeoutSeconds") or None,
        created_at=time_from_wire(fields.get("CreateTime")),
        updated_at=time_from_wire(fields.get("UpdateTime")),
    )


def instance_from_wire(fields: Fields) -> Instance:
    """Return an instance. Metadata comes as Name and Value, in older answers as Key and Value."""
    metadata = {
        (item.get("Name") or item.get("Key") or ""): item.get("Value") or "" for item in fields.get("Metadata") or []
    }
    reason = fields.get("StopReason")
    return Instance(
        id=fields["InstanceId"],
        tool_id=fields.get("ToolId") or "",
        tool_name=fields.get("ToolName") or "",
        status=fields.get("Status") or "UNKNOWN",
        stop_reason=reason.lower() if reason else None,
        metadata=metadata,
        auth_mode=fields.get("AuthMode") or None,
        persistent=bool(fields.get("Persistent")),
        timeout=fields.get("TimeoutSeconds") or None,
        expires_at=time_from_wire(fields.get("ExpiresAt")),
        created_at=time_from_wire(fields.get("CreateTime")),
        updated_at=time_from_wire(fields.get("UpdateTime")),
    )


def token_from_wire(instance_id: str, fields: Fields) -> AccessToken:
    """Return an access token."""
    traffic = fields.get("TrafficToken")
    return AccessToken(
        instance_id=instance_id,
        token=SecretStr(fields["Token"]),
        traffic_token=SecretStr(traffic) if traffic else None,
        expires_at=time_from_wire(fields.get("ExpiresAt")),
    )


def snapshot_from_wire(fields: Fields) -> Snapshot:
    """Return a snapshot."""
    return Snapshot(
        id=fields["SnapshotId"],
        name=fields.get("SnapshotName") or "",
        instance_id=fields.get("SourceInstanceId") or None,
        status=fields.get("Status") or "UNKNOWN",
        memory=bool(fields.get("MemoryIncluded")),
        tags={tag["Key"]: tag.get("Value") or "" for tag in fields.get("Tags") or []},
        created_at=time_from_wire(fields.get("CreateTime")),
    )


def time_from_wire(text: str | None) -> datetime | None:
    """Return an aware time, None for none; a form that is not understood counts as none."""
    match = _TIME.fullmatch(text.strip()) if text else None
    if not match:
        return None
    seconds, fraction, offset = match.groups()
    digits = (fraction or "0")[:6].ljust(6, "0")
    zone = "+00:00" if offset in (None, "Z") else offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    return datetime.fromisoformat(f"{seconds}.{digits}{zone}").astimezone(timezone.utc)
