"""Sandboxes of E2B's API: created, listed, kept alive, paused, forked, ended."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from starlette.responses import Response

from ags_flows.emulator.e2b import custom_config, egress
from ags_flows.emulator.e2b.body import Body, Query
from ags_flows.emulator.e2b.metrics import samples
from ags_flows.emulator.e2b.shapes import connection, detailed, listed, snapshot_info, state_of, status_of
from ags_flows.emulator.http import JsonResponse
from ags_flows.emulator.world.instance import Instance, Lifecycle
from ags_flows.emulator.world.instances import Order
from ags_flows.emulator.world.paging import by_token
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.region import Region
from ags_flows.emulator.world.tool import Tool
from ags_flows.emulator.world.world import World

Json = dict[str, Any]

_DAY = 24 * 3600


class Sandboxes:
    """The routes below ``/sandboxes``.

    Args:
        world: The world whose instances are shown.
        region: Where sandboxes are created.
        domain: The domain below which clients reach ports of sandboxes.
    """

    def __init__(self, world: World, region: Region, domain: str | None) -> None:
        self._world = world
        self._region = region
        self._domain = domain

    async def create(self, body: Body, key: str | None) -> Response:
        """POST /sandboxes."""
        template = body.text("templateID", needed=True)
        scope = "e2b/create"
        made = self._world.client_tokens.recall(scope, key, body.values)
        instance = self._world.find_instance(made) if made is not None else None
        if instance is None or state_of(instance) is None:
            instance = self._create(template, body)
            self._world.client_tokens.remember(scope, key, body.values, instance.instance_id)
        await self._running(instance)
        return JsonResponse(self._connection(instance), 201)

    def list(self, query: Query, *, paused: bool) -> Response:
        """GET /sandboxes; ``paused`` is whether paused ones are shown when no state is asked for."""
        states = {state for value in query.getlist("state") for state in value.split(",") if state}
        if states - {"running", "paused"}:
            raise Refusal("InvalidParameter", f"Unknown state {sorted(states - {'running', 'paused'})[0]!r}.")
        wanted = states or ({"running", "paused"} if paused else {"running"})
        metadata = {
            unquote_plus(name): unquote_plus(value)
            for name, value in parse_qsl(query.one("metadata") or "", keep_blank_values=True)
        }
        order = query.one("order") or "desc"
        if order not in ("asc", "desc"):
            raise Refusal("InvalidParameter", f"order must be asc or desc, not {order!r}.")
        since = _moment(query.one("startedAfter"))
        template = query.one("template")
        found = [
            each
            for each in self._world.all_instances()
            if state_of(each) in wanted
            and all(each.metadata.get(name) == value for name, value in metadata.items())
            and (since is None or each.started_at > since)
            and template in (None, each.tool_id, each.tool_name, each.source)
        ]
        sign = 1 if order == "desc" else -1
        found.sort(key=lambda each: -sign * each.number)
        page = by_token(
            found,
            order=lambda each: sign * each.number,
            query=[sorted(wanted), metadata, order, since, template],
            now=self._world.clock.now(),
            size=query.number("limit", 100),
            token=query.one("nextToken"),
            count=False,
        )
        headers = {"x-next-token": page.next_token} if page.next_token else {}
        shown = [listed(each, self._world.settings.envd_version) for each in page.items]
        return JsonResponse(shown, headers=headers)

    def get(self, sandbox_id: str) -> Response:
        """GET /sandboxes/{id}."""
        instance = self._known(sandbox_id)
        if instance.pending is not None:
            instance.pending.read()
        return JsonResponse(detailed(instance, self._world.settings.envd_version, self._domain))

    async def kill(self, sandbox_id: str) -> Response:
        """DELETE /sandboxes/{id}."""
        instance = self._known(sandbox_id)
        region = self._of(instance)
        region.instances.stop(instance)
        await region.instances.settle(instance)
        return Response(status_code=204)

    def set_timeout(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/timeout: from now on, longer or shorter."""
        instance = self._known(sandbox_id)
        timeout = _seconds(body.number("timeout", needed=True))
        instances = self._of(instance).instances
        instances.need(instance, "RUNNING")
        instances.restart_countdown(instance, timeout)
        return Response(status_code=204)

    def refresh(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/refreshes: longer, never shorter."""
        instance = self._known(sandbox_id)
        self._of(instance).instances.extend(instance, _seconds(body.number("duration") or 15))
        return Response(status_code=204)

    async def connect(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/connect: a paused sandbox is resumed, a running one lives longer, never shorter."""
        instance = self._known(sandbox_id)
        timeout = _seconds(body.number("timeout") if body.has("timeout") else 300)
        memory = body.flag("memory", True)
        region = self._of(instance)
        if instance.status in ("STARTING", "PAUSING", "RESUMING"):
            await region.instances.settle(instance)
            instance = self._known(sandbox_id)
        if instance.status == "PAUSED":
            region.instances.resume(instance, timeout, memory=memory)
            await self._running(instance)
            return JsonResponse(self._connection(instance), 201)
        region.instances.extend(instance, timeout)
        return JsonResponse(self._connection(instance))

    async def resume(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/resume."""
        instance = self._known(sandbox_id)
        timeout = _seconds(body.number("timeout") if body.has("timeout") else 15)
        region = self._of(instance)
        await region.instances.settle(instance)
        region.instances.resume(instance, timeout, memory=body.flag("memory", True))
        if body.has("autoPause"):
            instance.lifecycle.auto_pause = body.flag("autoPause", False)
        await self._running(instance)
        return JsonResponse(self._connection(instance), 201)

    async def pause(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/pause."""
        instance = self._known(sandbox_id)
        region = self._of(instance)
        if instance.status == "STARTING":
            await region.instances.settle(instance)
        if instance.status in ("PAUSED", "PAUSING"):
            await region.instances.settle(instance)
            raise Refusal("UnsupportedOperation.SandboxInstance", f"Sandbox {sandbox_id} is already paused.")
        region.instances.pause(instance, memory=body.flag("memory", True))
        await region.instances.settle(instance)
        if instance.status != "PAUSED":
            raise Refusal("InternalError", f"Sandbox {sandbox_id} could not be paused: {instance.status_reason}")
        return Response(status_code=204)

    async def snapshot(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/snapshots."""
        instance = self._known(sandbox_id)
        region = self._of(instance)
        await region.instances.settle(instance)
        name = body.text("name") or None
        made = await region.snapshots.create(instance.instance_id, name, memory=body.flag("memory", True))
        return JsonResponse(snapshot_info(made), 201)

    async def fork(self, sandbox_id: str, body: Body) -> Response:
        """POST /sandboxes/{id}/fork."""
        instance = self._known(sandbox_id)
        region = self._of(instance)
        await region.instances.settle(instance)
        timeout = _seconds(body.number("timeout") if body.has("timeout") else 300)
        count = body.number("count") if body.has("count") else 1
        if count is None or not 1 <= count <= 100:
            raise Refusal("InvalidParameter", f"count must be 1 to 100, not {count}.")
        results = await asyncio.gather(*(self._fork(region, instance, timeout) for _ in range(count)))
        return JsonResponse(list(results), 201)

    async def metrics(self, sandbox_id: str, query: Query) -> Response:
        """GET /sandboxes/{id}/metrics."""
        instance = self._known(sandbox_id)
        taken = await samples(instance, self._world.clock.now())
        start, end = query.number("start", 0), query.number("end", 2**53)
        return JsonResponse([each for each in taken if start <= each["timestampUnix"] <= end])

    async def all_metrics(self, query: Query) -> Response:
        """GET /sandboxes/metrics?sandbox_ids=a,b."""
        latest = {}
        for sandbox_id in {each for value in query.getlist("sandbox_ids") for each in value.split(",") if each}:
            instance = self._world.find_instance(sandbox_id)
            if instance is not None and state_of(instance) is not None:
                taken = await samples(instance, self._world.clock.now())
                if taken:
                    latest[sandbox_id] = taken[-1]
        return JsonResponse({"sandboxes": latest})

    def logs(self, sandbox_id: str) -> Response:
        """GET /sandboxes/{id}/logs: the emulator keeps none."""
        self._known(sandbox_id)
        return JsonResponse({"logs": [], "logEntries": []})

    def network(self, sandbox_id: str, body: Body) -> Response:
        """PUT /sandboxes/{id}/network."""
        instance = self._known(sandbox_id)
        change = {key: value for key, value in body.values.items() if value is not None}
        internet = body.maybe_flag("allow_internet_access")
        instances = self._of(instance).instances
        instances.set_network(instance, egress.reach_of(change, internet))
        network = egress.updated(instance.e2b.get("network") or {}, change)
        instance.e2b = {**instance.e2b, "network": network, "allowInternetAccess": internet}
        instances.keep(instance)
        return Response(status_code=204)

    def _create(self, template: str, body: Body) -> Instance:
        metadata = body.strings("metadata")
        network = body.mapping("network")
        internet = body.maybe_flag("allow_internet_access")
        if internet is None:
            internet = body.maybe_flag("allowInternetAccess")
        egress.reach_of(network, internet)
        auto_resume = body.mapping("autoResume")
        secure = body.maybe_flag("secure")
        if secure is False:
            auth_mode = "NONE"
        else:
            auth_mode = "TOKEN" if network.get("allowPublicTraffic") is False else "PUBLIC"
        if network.get("allowPublicTraffic") is False and secure is False:
            raise Refusal("InvalidParameter", "allowPublicTraffic: false needs a secure sandbox.")
        request: Json = {
            "AuthMode": auth_mode,
            "Metadata": [{"Name": name, "Value": value} for name, value in metadata.items()],
        }
        custom = custom_config.read(metadata)
        if custom is not None:
            request["CustomConfiguration"] = custom
        region, extra = self._origin(template)
        request.update(extra)
        if body.values.get("iam"):
            raise Refusal("InvalidParameter", "The emulator cannot honour 'iam'; leave it out.")
        order = Order(
            request,
            timeout=_seconds(body.number("timeout") if body.has("timeout") else 300),
            lifecycle=Lifecycle(
                auto_pause=body.flag("autoPause", False),
                auto_pause_memory=body.flag("autoPauseMemory", True),
                auto_resume=bool(auto_resume.get("enabled")),
            ),
            e2b={
                "envVars": body.strings("envVars"),
                "network": egress.kept(network),
                "allowInternetAccess": internet,
                "volumeMounts": body.values.get("volumeMounts") or [],
            },
        )
        return region.instances.start(order)

    def _origin(self, template: str) -> tuple[Region, Json]:
        """Return where a template is, and how StartSandboxInstance names it."""
        regions = [self._region, *(each for each in self._world.regions.values() if each is not self._region)]
        names = [template, *([template.rsplit(":", 1)[0]] if ":" in template else [])]
        for name in names:
            for region in regions:
                tool = _tool(region, name)
                if tool is not None:
                    return region, {"ToolId": tool.tool_id}
                snapshot = region.snapshots.find(name)
                if snapshot is not None:
                    return region, {"SnapshotId": snapshot.snapshot_id}
        raise Refusal("ResourceNotFound.SandboxTool", f"template '{template}' not found")

    async def _fork(self, region: Region, source: Instance, timeout: int) -> Json:
        request: Json = {
            "SourceInstanceId": source.instance_id,
            "AuthMode": source.auth_mode,
            "Metadata": [{"Name": name, "Value": value} for name, value in source.metadata.items()],
        }
        try:
            fork = region.instances.start(
                Order(request, timeout=timeout, lifecycle=source.lifecycle, e2b=dict(source.e2b))
            )
            await self._running(fork)
        except Refusal as refusal:
            return {"error": {"code": status_of(refusal), "message": refusal.message}}
        return {"sandbox": self._connection(fork)}

    async def _running(self, instance: Instance) -> None:
        """Wait until an instance runs.

        Raises:
            Refusal: when it came to something else.
        """
        await self._of(instance).instances.settle(instance)
        if instance.status != "RUNNING":
            reason = f": {instance.status_reason}" if instance.status_reason else ""
            raise Refusal("FailedOperation", f"Sandbox {instance.instance_id} is {instance.status}{reason}")

    def _known(self, sandbox_id: str) -> Instance:
        instance = self._world.find_instance(sandbox_id)
        if instance is None or state_of(instance) is None:
            raise Refusal("ResourceNotFound.SandboxInstance", f"sandbox {sandbox_id[:80]!r} not found")
        return instance

    def _of(self, instance: Instance) -> Region:
        return self._world.region(instance.region)

    def _connection(self, instance: Instance) -> Json:
        return connection(instance, self._world.settings.envd_version, self._domain)


def _tool(region: Region, name: str) -> Tool | None:
    found = region.tools.named(name)
    return found or next((tool for tool in region.tools if tool.tool_id == name), None)


def _seconds(value: int | None) -> int:
    if value is None or not 0 <= value <= _DAY:
        raise Refusal("InvalidParameterValue.Timeout", f"Timeout must be 0 to {_DAY} seconds, not {value}.")
    return value


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        # Python 3.10 reads neither Z nor fractions of other than 3 or 6 digits.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    except ValueError:
        raise Refusal("InvalidParameter", f"startedAfter {text[:40]!r} is not a time.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
