"""Tools and snapshots as E2B's API knows them: templates. Building templates is not something AGS offers."""

from __future__ import annotations

from starlette.responses import Response

from ags_flows.emulator.e2b.body import Query
from ags_flows.emulator.e2b.shapes import snapshot_info, template_info
from ags_flows.emulator.http import JsonResponse
from ags_flows.emulator.world.paging import by_token
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.region import Region
from ags_flows.emulator.world.world import World


class Templates:
    """The routes below ``/templates``, and ``/snapshots``."""

    def __init__(self, world: World, region: Region) -> None:
        self._world = world
        self._region = region

    def list(self) -> Response:
        """GET /templates."""
        version = self._world.settings.envd_version
        return JsonResponse([template_info(tool, version, self._spawned(tool.tool_id)) for tool in self._region.tools])

    def get(self, name: str) -> Response:
        """GET /templates/{id}."""
        for tool in self._region.tools:
            if name in (tool.tool_id, tool.name):
                shown = template_info(tool, self._world.settings.envd_version, self._spawned(tool.tool_id))
                return JsonResponse({**shown, "builds": []})
        raise Refusal("ResourceNotFound", f"template '{name[:80]}' not found")

    def alias(self, name: str) -> Response:
        """GET /templates/aliases/{alias}."""
        tool = self._region.tools.named(name)
        if tool is None:
            raise Refusal("ResourceNotFound", f"template alias '{name[:80]}' not found")
        return JsonResponse({"templateID": tool.tool_id, "public": False})

    async def delete(self, name: str) -> Response:
        """DELETE /templates/{id}: a snapshot, or a tool that no sandbox uses."""
        for region in self._world.regions.values():
            snapshot = region.snapshots.find(name)
            if snapshot is not None:
                await region.snapshots.delete(snapshot.snapshot_id)
                return Response(status_code=204)
            for tool in region.tools:
                if name in (tool.tool_id, tool.name):
                    region.tools.delete(tool.tool_id)
                    return Response(status_code=204)
        raise Refusal("ResourceNotFound", f"template '{name[:80]}' not found")

    def snapshots(self, query: Query) -> Response:
        """GET /snapshots."""
        sandbox, name = query.one("sandboxID"), query.one("name")
        found = [
            snapshot
            for region in self._world.regions.values()
            for snapshot in region.snapshots
            if sandbox in (None, snapshot.source_instance_id) and name in (None, snapshot.name, snapshot.snapshot_id)
        ]
        found.sort(key=lambda snapshot: -snapshot.number)
        page = by_token(
            found,
            order=lambda snapshot: snapshot.number,
            query=[sandbox, name],
            now=self._world.clock.now(),
            size=query.number("limit", 100),
            token=query.one("nextToken"),
            count=False,
        )
        headers = {"x-next-token": page.next_token} if page.next_token else {}
        return JsonResponse([snapshot_info(each) for each in page.items], headers=headers)

    def _spawned(self, tool_id: str) -> int:
        return sum(1 for instance in self._world.all_instances() if instance.tool_id == tool_id)
