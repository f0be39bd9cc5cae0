"""Our values as parameters of the Cloud API, and its responses as our values.

Field names are those of API version 2025-09-20. Responses are read tolerantly: unknown states and fields, empty and
missing values, times with `Z` or an offset and up to nine digits of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from pydantic import SecretStr

from ags_flows.errors import ConfigurationError, ServiceError
from ags_flows.models import (
    AccessToken,
    CfsSource,
    Computer,
    CosSource,
    CustomConfiguration,
    Dns,
    ImageSource,
    Instance,
    Logs,
    MountOption,
    MountSource,
    Network,
    PrecachedImage,
    Probe,
    Resources,
    Security,
    Snapshot,
    StorageMount,
    Tool,
    ToolSpec,
    VolumeSource,
    VolumeTemplateSource,
)
from ags_flows.models.durations import format_duration, parse_duration

Fields = dict[str, Any]

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?", re.ASCII | re.IGNORECASE)


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
    resources, registry = spec.resources, spec.image_registry_type
    if spec.type == "custom":
        if not spec.image:
            raise ConfigurationError(f"Tool {spec.name!r} has no image.", hint="Give image=..., such as 'python:3.11'.")
        resources, registry = resources or Resources(), registry or "enterprise"
    return present(
        ToolName=spec.name,
        ToolType=spec.type,
        NetworkConfiguration=network_to_wire(spec.network),
        Description=spec.description,
        DefaultTimeout=timeout_to_wire(spec.default_timeout),
        Tags=pairs(spec.tags, "Key"),
        RoleArn=spec.role_arn,
        StorageMounts=[mount_to_wire(mount) for mount in spec.mounts],
        CustomConfiguration=_container(spec, registry, resources),
        ComputerConfiguration=computer_to_wire(spec.computer) if spec.computer else None,
        LogConfiguration=logs_to_wire(spec.logs) if spec.logs else None,
        Persistent=spec.persistent or None,
    )


def custom_to_wire(custom: CustomConfiguration) -> Fields:
    """Return the CustomConfiguration of one instance, or of a tool that is updated."""
    return _container(custom, custom.image_registry_type, custom.resources)


def _container(described: ToolSpec | CustomConfiguration, registry: str | None, resources: Resources | None) -> Fields:
    return present(
        Image=described.image,
        ImageRegistryType=registry,
        Command=list(described.command),
        Args=list(described.args),
        Env=pairs(described.env),
        Ports=[{"Name": port.name, "Port": port.port, "Protocol": port.protocol} for port in described.ports],
        Resources=resources_to_wire(resources) if resources else None,
        Probe=probe_to_wire(described.probe) if described.probe else None,
        DNSConfig=dns_to_wire(described.dns) if described.dns else None,
        SecurityContext=security_to_wire(described.security) if described.security else None,
    )


def resources_to_wire(resources: Resources) -> Fields:
    """Return ResourceConfiguration."""
    return present(CPU=resources.cpu, Memory=resources.memory, Storage=resources.storage)


def dns_to_wire(dns: Dns) -> Fields:
    """Return DNSConfig."""
    return present(Servers=list(dns.servers), Searches=list(dns.searches), Options=list(dns.options))


def security_to_wire(security: Security) -> Fields:
    """Return SecurityContext."""
    capabilities = present(Add=list(security.add_capabilities), Drop=list(security.drop_capabilities))
    return present(Privileged=security.privileged, Capabilities=capabilities)


def computer_to_wire(computer: Computer) -> Fields:
    """Return ComputerConfiguration."""
    return present(
        OSWorldConfiguration=present(Version=computer.osworld_version),
        WAAConfiguration=present(ImageId=computer.waa_image_id),
    )


def logs_to_wire(logs: Logs) -> Fields:
    """Return LogConfiguration."""
    return present(CLSConfig=present(TopicId=logs.topic_id), LogSources=present(Files=list(logs.files)))


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
    return {
        "Name": mount.name,
        "MountPath": mount.mount_path,
        "ReadOnly": mount.readonly,
        **_source(mount.source),
    }


def _source(source: MountSource) -> Fields:
    if isinstance(source, VolumeSource):
        return {"Volume": present(VolumeId=source.volume_id, VolumeName=source.name)}
    if isinstance(source, VolumeTemplateSource):
        return {"VolumeTemplate": present(VolumeTemplateName=source.name, ReuseKey=source.reuse_key)}
    storage: Fields
    if isinstance(source, ImageSource):
        registry = source.image_registry_type
        storage = {"Image": present(Reference=source.image, ImageRegistryType=registry, SubPath=source.subpath)}
    elif isinstance(source, CosSource):
        storage = {"Cos": present(Endpoint=source.endpoint, BucketName=source.bucket, BucketPath=source.path)}
    elif isinstance(source, CfsSource):
        storage = {"Cfs": present(FileSystemId=source.file_system_id, Path=source.path)}
    else:
        place = present(LibraryId=source.library_id, SpaceId=source.space_id, AccessDomain=source.access_domain)
        storage = {"AgentBucket": place}
    return {"StorageSource": storage}


def mount_option_to_wire(option: MountOption) -> Fields:
    """Return MountOption."""
    return present(Name=option.name, MountPath=option.mount_path, SubPath=option.subpath, ReadOnly=option.readonly)


def status_from_wire(fields: Fields) -> str:
    """Return the state; one that is not known yet is passed on as it is, in upper case."""
    return (fields.get("Status") or "UNKNOWN").upper()


def tags_from_wire(fields: Fields) -> dict[str, str]:
    """Return the tags without those of AGS itself (prefix `qcs`), which users cannot set or copy."""
    tags = {tag.get("Key") or "": tag.get("Value") or "" for tag in fields.get("Tags") or []}
    return {key: value for key, value in tags.items() if key and not key.startswith("qcs")}


def seconds_from_wire(value: Any) -> int | None:
    """Return seconds, None for no limit; a duration such as `5m` is understood too."""
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ConfigurationError:
            return None
    return int(value) if value else None


def tool_from_wire(fields: Fields) -> Tool:
    """Return a tool."""
    custom = fields.get("CustomConfiguration") or {}
    network = fields.get("NetworkConfiguration") or {}
    return Tool(
        id=fields["ToolId"],
        name=fields.get("ToolName") or "",
        type=fields.get("ToolType") or "custom",
        status=status_from_wire(fields),
        status_reason=fields.get("StatusReason") or None,
        image=custom.get("Image") or None,
        description=fields.get("Description") or "",
        tags=tags_from_wire(fields),
        network_mode=network.get("NetworkMode") or None,
        role_arn=fields.get("RoleArn") or None,
        persistent=bool(fields.get("Persistent")),
        default_timeout=seconds_from_wire(fields.get("DefaultTimeoutSeconds")),
        **_sizes(custom),
        created_at=time_from_wire(fields.get("CreateTime")),
        updated_at=time_from_wire(fields.get("UpdateTime")),
    )


def instance_from_wire(fields: Fields) -> Instance:
    """Return an instance. Metadata comes as Name and Value, in older responses as Key and Value."""
    listed = fields.get("Metadata") or []
    metadata = {item.get("Name") or item.get("Key") or "": item.get("Value") or "" for item in listed}
    reason = fields.get("StopReason")
    return Instance(
        id=fields["InstanceId"],
        tool_id=fields.get("ToolId") or "",
        tool_name=fields.get("ToolName") or "",
        status=status_from_wire(fields),
        stop_reason=reason.lower() if reason else None,
        metadata=metadata,
        auth_mode=fields.get("AuthMode") or None,
        persistent=bool(fields.get("Persistent")),
        **_sizes(fields.get("CustomConfiguration") or {}),
        timeout=seconds_from_wire(fields.get("TimeoutSeconds")),
        expires_at=time_from_wire(fields.get("ExpiresAt")),
        created_at=time_from_wire(fields.get("CreateTime")),
        updated_at=time_from_wire(fields.get("UpdateTime")),
    )


def _sizes(custom: Fields) -> dict[str, float | None]:
    """Return cores and GiB, from amounts such as `500m` or `2`, and `512Mi` or `2Gi`."""
    resources = custom.get("Resources") or {}
    cpu, memory = str(resources.get("CPU") or ""), str(resources.get("Memory") or "")
    return {
        "cpu_cores": _amount(cpu.removesuffix("m"), 0.001 if cpu.endswith("m") else 1.0),
        "memory_gib": _amount(memory.removesuffix("Gi").removesuffix("Mi"), 1 / 1024 if memory.endswith("Mi") else 1.0),
    }


def _amount(number: str, unit: float) -> float | None:
    try:
        return float(number) * unit
    except ValueError:
        # Missing, or written in a way that came after this version.
        return None


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
        status=status_from_wire(fields),
        memory=bool(fields.get("MemoryIncluded")),
        tags=tags_from_wire(fields),
        created_at=time_from_wire(fields.get("CreateTime")),
    )


def precached_from_wire(fields: Fields) -> PrecachedImage:
    """Return an image that AGS caches."""
    return PrecachedImage(
        id=fields["PreCacheImageId"],
        image=fields.get("Image") or "",
        image_registry_type=fields.get("ImageRegistryType") or "",
        digest=fields.get("ImageDigest") or "",
        status=status_from_wire(fields),
        message=fields.get("Message") or "",
        source=fields.get("SourceType") or "",
        size=int(fields.get("CachedImageSizeBytes") or 0),
        created_at=time_from_wire(fields.get("CreateTime")),
    )


def part(answer: Mapping[str, Any], action: str, name: str) -> Any:
    """Return a required field of a response."""
    part = answer.get(name)
    if not part:
        raise ServiceError(f"{action}: the response has no {name}.", request_id=answer.get("RequestId"))
    return part


def time_from_wire(text: str | None) -> datetime | None:
    """Return an aware time in UTC, None for none; a form that is not understood counts as none."""
    match = _TIME.fullmatch(text.strip()) if text else None
    if not match or match[1].startswith("0001-"):
        # Services in Go write their zero time, of the year 1, for none.
        return None
    day, seconds, fraction, offset = match.groups()
    digits = (fraction or "0")[:6].ljust(6, "0")
    zone = "+00:00" if offset in (None, "Z", "z") else offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    try:
        return datetime.fromisoformat(f"{day}T{seconds}.{digits}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
