"""The actions: what each reads from its request, asks of the world, and returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ags_flows.emulator.cloudapi.filters import chosen, matching
from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import detail, kibibytes, milli_cpus
from ags_flows.emulator.world.durations import seconds_of
from ags_flows.emulator.world.instance import STATUSES, Instance
from ags_flows.emulator.world.instances import Order
from ags_flows.emulator.world.paging import by_offset, by_token
from ags_flows.emulator.world.precache import PrecachedImage
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.region import Region
from ags_flows.emulator.world.snapshots import Snapshot
from ags_flows.emulator.world.tool import Tool

Json = dict[str, Any]
Action = Callable[[Region, Json], Awaitable[Json]]


async def create_sandbox_tool(region: Region, request: Json) -> Json:
    """CreateSandboxTool."""
    world, scope = region.world, f"{region.name}/CreateSandboxTool"
    token = request.get("ClientToken")
    made = world.client_tokens.recall(scope, token, request)
    if made is None:
        made = region.tools.create(request).tool_id
        world.client_tokens.remember(scope, token, request, made)
    return {"ToolId": made}


async def update_sandbox_tool(region: Region, request: Json) -> Json:
    """UpdateSandboxTool."""
    region.tools.update(request)
    return {}


async def delete_sandbox_tool(region: Region, request: Json) -> Json:
    """DeleteSandboxTool."""
    region.tools.delete(request.get("ToolId"))
    return {}


async def describe_sandbox_tool_list(region: Region, request: Json) -> Json:
    """DescribeSandboxToolList."""
    tools = chosen(region.tools, request.get("ToolIds"), lambda tool: tool.tool_id, "InvalidParameterValue.ToolIds")
    found = matching(tools, _tag_filters(request.get("Filters")), _TOOL_FILTERS)
    page = by_offset(found, request.get("Offset"), request.get("Limit"))
    shown = [tool.shown() for tool in page.items]
    for tool in page.items:
        if tool.pending is not None:
            tool.pending.read()
    return {"SandboxToolSet": shown, "TotalCount": page.total}


async def start_sandbox_instance(region: Region, request: Json) -> Json:
    """StartSandboxInstance."""
    world, scope = region.world, f"{region.name}/StartSandboxInstance"
    token = request.get("ClientToken")
    made = world.client_tokens.recall(scope, token, request)
    instance = region.instances.find(made) if made is not None else None
    if instance is None:
        instance = region.instances.start(Order(request))
        world.client_tokens.remember(scope, token, request, instance.instance_id)
        starting = instance.shown()
        if instance.pending is None or not instance.pending.at_once:
            await world.clock.sleep(world.profile.start_delay)
            return {"Instance": starting}
        await region.instances.settle(instance)
    return {"Instance": instance.shown()}


async def stop_sandbox_instance(region: Region, request: Json) -> Json:
    """StopSandboxInstance."""
    instance = region.instances.get(request.get("InstanceId"))
    region.instances.stop(instance)
    await _at_once(region, instance)
    return {}


async def pause_sandbox_instance(region: Region, request: Json) -> Json:
    """PauseSandboxInstance."""
    instance = region.instances.get(request.get("InstanceId"))
    region.instances.pause(instance, memory=request.get("Memory", True))
    await _at_once(region, instance)
    return {"InstanceStatus": instance.status}


async def resume_sandbox_instance(region: Region, request: Json) -> Json:
    """ResumeSandboxInstance."""
    instance = region.instances.get(request.get("InstanceId"))
    timeout = seconds_of(request.get("Timeout") or "5m", "Timeout", least=30)
    region.instances.resume(instance, timeout)
    await _at_once(region, instance)
    return {}


async def update_sandbox_instance(region: Region, request: Json) -> Json:
    """UpdateSandboxInstance."""
    instance = region.instances.get(request.get("InstanceId"))
    timeout = seconds_of(request["Timeout"], "Timeout", least=30) if request.get("Timeout") else None
    region.instances.update(instance, timeout=timeout, metadata=request.get("Metadata"))
    return {}


async def describe_sandbox_instance_list(region: Region, request: Json) -> Json:
    """DescribeSandboxInstanceList."""
    ids = request.get("InstanceIds")
    instances = chosen(region.instances, ids, lambda each: each.instance_id, "InvalidParameterValue.InstanceIds")
    instances = region.world.profile.listed(instances, region.world.clock.now(), by_id=bool(ids))
    if request.get("ToolId"):
        instances = [each for each in instances if each.tool_id == request["ToolId"]]
    for each in request.get("Filters") or []:
        if each.get("Name") == "Status":
            values = each.get("Values") or []
            unknown = [value for value in values if value not in STATUSES]
            if unknown:
                raise Refusal("InvalidParameter.Filters", f"Status {unknown[0][:40]!r} is not known.")
            if "UNHEALTHY" in values and set(values) != {"UNHEALTHY"}:
                raise Refusal("InvalidParameter.Filters", "Status UNHEALTHY cannot be combined with others.")
    found = matching(instances, request.get("Filters"), _INSTANCE_FILTERS)
    # NeedTotalCount matters with tokens only; pages by offset are always counted.
    if request.get("MaxResults") is not None or request.get("NextToken") is not None:
        _only_tokens(request)
        page = by_token(
            found,
            order=lambda each: each.number,
            query=[region.name, ids, request.get("ToolId"), request.get("Filters")],
            now=region.world.clock.now(),
            size=request.get("MaxResults"),
            token=request.get("NextToken"),
            count=bool(request.get("NeedTotalCount")),
        )
    else:
        page = by_offset(found, request.get("Offset"), request.get("Limit"))
    answer = {"InstanceSet": _read(page.items), "TotalCount": page.total, "NextToken": page.next_token}
    return answer


async def describe_sandbox_instances(region: Region, request: Json) -> Json:
    """DescribeSandboxInstances."""
    ids = request.get("InstanceIds")
    instances = chosen(region.instances, ids, lambda each: each.instance_id, "InvalidParameterValue.InstanceIds")
    return {"InstanceSet": _read(instances[:100])}


async def acquire_sandbox_instance_token(region: Region, request: Json) -> Json:
    """AcquireSandboxInstanceToken."""
    instance = region.instances.get(request.get("InstanceId"))
    if instance.ended or instance.status == "STOPPING":
        raise Refusal(
            "UnsupportedOperation.SandboxInstance",
            f"Sandbox instance {instance.instance_id} is {instance.status}; it takes no more tokens.",
        )
    world = region.world
    token, end = instance.tokens.acquire(world.profile.token_lifetime or world.settings.token_lifetime)
    region.instances.keep(instance)
    return {"Token": token, "ExpiresAt": iso(end), "TrafficToken": instance.tokens.traffic}


async def create_sandbox_snapshot(region: Region, request: Json) -> Json:
    """CreateSandboxSnapshot."""
    world, scope = region.world, f"{region.name}/CreateSandboxSnapshot"
    token = request.get("ClientToken")
    made = world.client_tokens.recall(scope, token, request)
    snapshot = region.snapshots.find(made) if made is not None else None
    if snapshot is None:
        snapshot = await region.snapshots.create(
            request.get("InstanceId"),
            request.get("SnapshotName"),
            memory=bool(request.get("Memory")),
            tags=request.get("Tags"),
        )
        world.client_tokens.remember(scope, token, request, snapshot.snapshot_id)
    return {"Snapshot": snapshot.shown()}


async def delete_sandbox_snapshot(region: Region, request: Json) -> Json:
    """DeleteSandboxSnapshot."""
    await region.snapshots.delete(request.get("SnapshotId"))
    return {}


async def describe_sandbox_snapshot_list(region: Region, request: Json) -> Json:
    """DescribeSandboxSnapshotList."""
    ids = request.get("SnapshotIds")
    snapshots = chosen(region.snapshots, ids, lambda each: each.snapshot_id, "InvalidParameterValue")
    found = matching(snapshots, _tag_filters(request.get("Filters")), _SNAPSHOT_FILTERS)
    if request.get("NextToken") is not None or request.get("MaxResults") is not None:
        _only_tokens(request)
        page = by_token(
            found,
            order=lambda each: each.number,
            query=[region.name, ids, request.get("Filters")],
            now=region.world.clock.now(),
            size=request.get("MaxResults"),
            token=request.get("NextToken"),
            count=True,
        )
    else:
        page = by_offset(found, request.get("Offset"), request.get("Limit"))
    shown = [each.shown() for each in page.items]
    return {"SnapshotSet": shown, "TotalCount": page.total, "NextToken": page.next_token}


async def create_api_key(region: Region, request: Json) -> Json:
    """CreateAPIKey."""
    key = region.world.api_keys.create(request.get("Name"))
    return {"Name": key.name, "APIKey": key.secret, "KeyId": key.key_id}


async def delete_api_key(region: Region, request: Json) -> Json:
    """DeleteAPIKey."""
    region.world.api_keys.delete(request.get("KeyId"))
    return {}


async def describe_api_key_list(region: Region, request: Json) -> Json:
    """DescribeAPIKeyList."""
    shown = [key.shown() for key in region.world.api_keys]
    return {"APIKeySet": shown, "TotalCount": len(shown)}


async def describe_quota_overview(region: Region, request: Json) -> Json:
    """DescribeQuotaOverview. There are no quota groups here."""
    by_offset([], request.get("Offset"), request.get("Limit"))
    matching([], request.get("Filters"), {name: lambda _: () for name in ("Name", "TagKey", "TagValue")})
    limits = region.world.limits
    live = [each for each in region.instances if not each.ended]
    running = [each for each in live if each.status != "PAUSED"]
    cpus, memory = _resources(running)
    quota = {
        "SandboxTools": limits.quota("tools"),
        "SandboxInstances": limits.quota("instances"),
        "PausedInstances": limits.quota("paused"),
        "CPUCores": float(2 * limits.quota("instances")),
        "MemoryGiB": float(4 * limits.quota("instances")),
    }
    usage = {
        "SandboxTools": len(region.tools),
        "SandboxInstances": len(running),
        "PausedInstances": len(live) - len(running),
        "CPUCores": cpus,
        "MemoryGiB": memory,
    }
    return {
        "AccountQuotaOverview": {"Quota": quota, "Usage": usage},
        "QuotaGroupSet": [],
        "TotalCount": 0,
        "DataTime": iso(region.world.clock.now()),
    }


async def create_pre_cache_image_task(region: Region, request: Json) -> Json:
    """CreatePreCacheImageTask."""
    shown = region.precached.create(request.get("Image"), request.get("ImageRegistryType")).shown()
    return {name: shown[name] for name in ("Image", "ImageDigest", "ImageRegistryType", "PreCacheImageId")}


async def describe_pre_cache_image_task(region: Region, request: Json) -> Json:
    """DescribePreCacheImageTask."""
    record = region.precached.find(request)
    shown = record.shown()
    if record.pending is not None:
        record.pending.read()
    return shown


async def describe_pre_cache_image_list(region: Region, request: Json) -> Json:
    """DescribePreCacheImageList."""
    found = matching(region.precached, request.get("Filters"), _PRECACHE_FILTERS)
    page = by_token(
        found,
        order=lambda each: each.number,
        query=[region.name, request.get("Filters")],
        now=region.world.clock.now(),
        size=request.get("MaxResults"),
        token=request.get("NextToken"),
        count=bool(request.get("NeedTotalCount")),
    )
    shown = [each.shown(listed=True) for each in page.items]
    return {"PreCacheImageList": shown, "TotalCount": page.total, "NextToken": page.next_token}


async def delete_pre_cache_image(region: Region, request: Json) -> Json:
    """DeletePreCacheImage."""
    region.precached.delete(request)
    return {}


ACTIONS: dict[str, Action] = {
    "AcquireSandboxInstanceToken": acquire_sandbox_instance_token,
    "CreateAPIKey": create_api_key,
    "CreatePreCacheImageTask": create_pre_cache_image_task,
    "CreateSandboxSnapshot": create_sandbox_snapshot,
    "CreateSandboxTool": create_sandbox_tool,
    "DeleteAPIKey": delete_api_key,
    "DeletePreCacheImage": delete_pre_cache_image,
    "DeleteSandboxSnapshot": delete_sandbox_snapshot,
    "DeleteSandboxTool": delete_sandbox_tool,
    "DescribeAPIKeyList": describe_api_key_list,
    "DescribePreCacheImageList": describe_pre_cache_image_list,
    "DescribePreCacheImageTask": describe_pre_cache_image_task,
    "DescribeQuotaOverview": describe_quota_overview,
    "DescribeSandboxInstanceList": describe_sandbox_instance_list,
    "DescribeSandboxInstances": describe_sandbox_instances,
    "DescribeSandboxSnapshotList": describe_sandbox_snapshot_list,
    "DescribeSandboxToolList": describe_sandbox_tool_list,
    "PauseSandboxInstance": pause_sandbox_instance,
    "ResumeSandboxInstance": resume_sandbox_instance,
    "StartSandboxInstance": start_sandbox_instance,
    "StopSandboxInstance": stop_sandbox_instance,
    "UpdateSandboxInstance": update_sandbox_instance,
    "UpdateSandboxTool": update_sandbox_tool,
}

WITHOUT_REGION = frozenset({"AcquireSandboxInstanceToken", "CreateAPIKey", "DeleteAPIKey", "DescribeAPIKeyList"})
"""Actions that need no region."""


def _tags(tags: list[Json]) -> list[str]:
    return [f"{tag['Key']}={tag['Value']}" for tag in tags]


_TOOL_FILTERS: dict[str, Callable[[Tool], list[str]]] = {
    "ToolName": lambda tool: [tool.name],
    "ToolType": lambda tool: [tool.type],
    "Status": lambda tool: [tool.status],
    "Tag": lambda tool: _tags(tool.tags),
    "TagKey": lambda tool: [tag["Key"] for tag in tool.tags],
    "TagValue": lambda tool: [tag["Value"] for tag in tool.tags],
}
_INSTANCE_FILTERS: dict[str, Callable[[Instance], list[str]]] = {
    "ToolName": lambda instance: [instance.tool_name],
    "ToolId": lambda instance: [instance.tool_id],
    "Status": lambda instance: [instance.status],
}
_SNAPSHOT_FILTERS: dict[str, Callable[[Snapshot], list[str]]] = {
    "SnapshotName": lambda snapshot: [snapshot.name],
    "SourceInstanceId": lambda snapshot: [snapshot.source_instance_id],
    "Status": lambda snapshot: [snapshot.status],
    "Tag": lambda snapshot: _tags(snapshot.tags),
    "TagKey": lambda snapshot: [tag["Key"] for tag in snapshot.tags],
    "TagValue": lambda snapshot: [tag["Value"] for tag in snapshot.tags],
}
_PRECACHE_FILTERS: dict[str, Callable[[PrecachedImage], list[str]]] = {
    "Image": lambda record: [record.image],
    "ImageDigest": lambda record: [record.shown()["ImageDigest"]],
    "ImageRegistryType": lambda record: [record.registry],
    "Status": lambda record: [record.status],
    "SourceType": lambda record: ["EXPLICIT"],
}


def _tag_filters(filters: list[Json] | None) -> list[Json]:
    """Return the filters with the older names of the tag filters replaced."""
    older = {"tag-key": "TagKey", "tag-value": "TagValue"}
    return [{**each, "Name": older.get(each.get("Name") or "", each.get("Name"))} for each in filters or []]


def _only_tokens(request: Json) -> None:
    if request.get("Offset") is not None or request.get("Limit") is not None:
        raise Refusal("InvalidParameter", "Page by MaxResults and NextToken or by Offset and Limit, not by both.")


def _read(instances: list[Instance]) -> list[Json]:
    shown = [instance.shown() for instance in instances]
    for instance in instances:
        if instance.pending is not None:
            instance.pending.read()
    return shown


async def _at_once(region: Region, instance: Instance) -> None:
    """Wait for the step if it is declared to end before the response."""
    if instance.pending is not None and instance.pending.at_once:
        await region.instances.settle(instance)


def _resources(instances: list[Instance]) -> tuple[float, float]:
    cpus = memory = 0.0
    for instance in instances:
        resources = (detail(instance.custom) or {}).get("Resources") or {}
        cpus += milli_cpus(resources.get("CPU") or "2") / 1000
        memory += kibibytes(resources.get("Memory") or "4Gi", "Memory") / 1024**2
    return cpus, round(memory, 3)
