"""What a test can make the emulator do: faults, time, limits, resets.

The same over HTTP, as JSON, below ``/_emulator``. Loopback needs no key. Web pages of other sites are kept out: a
request with an ``Origin`` that is not the emulator's is refused, and a body needs ``Content-Type: application/json``.

================================================  ===========================================================
``GET /_emulator``                                tools, instances (the latest 20 ended ones), faults, ...
``GET /_emulator/requests``                       the latest requests
``POST /_emulator/faults``                        a fault of the control planes, see `world.faults.Fault`
``DELETE /_emulator/faults``                      clear the faults of the control planes
``POST /_emulator/streams``                       a fault of connections to sandboxes, see `gateway.faults`
``DELETE /_emulator/streams``                     clear the faults of connections
``POST /_emulator/transitions``                   ``{"step", "mode", "value", "reason", "times"}``, see
                                                  `world.transitions`
``DELETE /_emulator/transitions``                 the defaults again; what hangs goes on
``POST /_emulator/limits``                        any of ``quotas, rates, instances, paused, tools, api_keys, rate``
``POST /_emulator/clock``                         ``{"advance": seconds}``
``POST /_emulator/client-tokens``                 ``{"on_repeat": "replay" | "refuse"}``
``POST /_emulator/tokens/expire``                 ``{"instance": id}``; without an id the tokens of all instances
``POST /_emulator/instances/{id}/die``            the sandbox dies: its instance becomes FAILED
``POST /_emulator/instances/{id}/disk``           ``{"full": true | false}``
``POST /_emulator/reset``                         a clean account
================================================  ===========================================================

Responses are JSON objects; an error is ``{"error": text}`` with status 400 or 404.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from starlette.requests import Request

from ags_flows.emulator.cloudapi import schema
from ags_flows.emulator.e2b.api import ROUTES
from ags_flows.emulator.gateway import StreamFaults
from ags_flows.emulator.http import JsonResponse, raw_path, read
from ags_flows.emulator.journal import Journal
from ags_flows.emulator.world.client_tokens import Repeat
from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.faults import Fault
from ags_flows.emulator.world.given import EXACT, checked
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.transitions import Transition
from ags_flows.emulator.world.world import World

Json = dict[str, Any]

MOST_ENDED = 20
"""Ended instances of one region in the overview."""

CENTURY = 100 * 365 * 86400.0


@dataclass
class _Advance:
    advance: Annotated[float, Field(ge=0, le=CENTURY)]
    """Seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = EXACT


@dataclass
class _OnRepeat:
    on_repeat: Repeat

    __pydantic_config__: ClassVar[ConfigDict] = EXACT


class Controls:
    """The controls of one emulator; to be used on its event loop.

    Args:
        world: The world.
        streams: The faults of the data plane (`gateway.faults.StreamFaults`).
        journal: The request log.
    """

    def __init__(self, world: World, streams: StreamFaults, journal: Journal) -> None:
        self._world = world
        self._streams = streams
        self._journal = journal

    async def overview(self, body: Json) -> Json:
        """Return everything there is; of the instances that have ended, the latest 20 of each region."""
        world = self._world
        return {
            "time": iso(world.clock.now()),
            "advanced": world.clock.offset,
            "regions": {
                name: {
                    "tools": [tool.shown() for tool in region.tools],
                    "instances": [self._shown(instance) for instance in _latest(region.instances)],
                    "snapshots": [snapshot.shown() for snapshot in region.snapshots],
                    "precached": [image.shown() for image in region.precached],
                }
                for name, region in world.regions.items()
            },
            "api_keys": [key.shown() for key in world.api_keys],
            "limits": world.limits.describe(),
            "transitions": world.transitions.describe(),
            "faults": world.faults.describe(),
            "streams": self._streams.describe(),
            "client_tokens": {"on_repeat": world.client_tokens.on_repeat},
            "ended": len(world.retention),
            "requests": self._journal.count,
        }

    async def requests(self, body: Json) -> Json:
        """Return the latest requests."""
        return {"requests": self._journal.latest()}

    async def add_fault(self, body: Json) -> Json:
        """Declare a fault of the control planes.

        Raises:
            ValueError: No control plane has the operation.
        """
        operation = body.get("operation", "*")
        if operation not in ("*", *ROUTES, *schema.actions()):
            raise ValueError(
                f"unknown operation {operation!r}; known: *, actions of the Cloud API such as StartSandboxInstance, "
                "and routes of the E2B API such as `DELETE /sandboxes/{id}`"
            )
        return {"fault": self._world.faults.add(checked(Fault, body))}

    async def clear_faults(self, body: Json) -> Json:
        """Forget the faults of the control planes."""
        self._world.faults.clear()
        return {}

    async def add_stream_fault(self, body: Json) -> Json:
        """Declare a fault of connections to sandboxes."""
        return {"fault": self._streams.add(**body)}

    async def clear_stream_faults(self, body: Json) -> Json:
        """Forget the faults of connections to sandboxes."""
        self._streams.clear()
        return {}

    async def set_transition(self, body: Json) -> Json:
        """Set how a step goes."""
        step = body.pop("step", "")
        self._world.transitions.declare(str(step), checked(Transition, body))
        return {"transitions": self._world.transitions.describe()}

    async def reset_transitions(self, body: Json) -> Json:
        """Return to the default steps."""
        self._world.transitions.reset()
        return {"transitions": self._world.transitions.describe()}

    async def set_limits(self, body: Json) -> Json:
        """Change quotas and request rates."""
        self._world.limits.change(body)
        return {"limits": self._world.limits.describe()}

    async def advance_clock(self, body: Json) -> Json:
        """Advance the clock; what became due has begun when this returns."""
        self._world.clock.advance(checked(_Advance, body).advance)
        self._world.note()
        return {"time": iso(self._world.clock.now()), "advanced": self._world.clock.offset}

    async def set_client_tokens(self, body: Json) -> Json:
        """Set what a repeated ClientToken does."""
        how = checked(_OnRepeat, body).on_repeat
        self._world.client_tokens.on_repeat = how
        return {"on_repeat": how}

    async def expire_tokens(self, body: Json) -> Json:
        """End the access tokens of one instance or of all."""
        wanted = body.get("instance")
        instances = [self._instance(wanted)] if wanted else list(self._world.all_instances())
        for instance in instances:
            instance.tokens.expire()
            self._world.region(instance.region).instances.keep(instance)
        return {"instances": len(instances)}

    async def die(self, body: Json) -> Json:
        """Let a sandbox die."""
        instance = self._instance(body.get("instance"))
        why = str(body.get("reason") or "the sandbox died")
        await self._world.region(instance.region).instances.die(instance, why)
        return {"status": instance.status}

    async def fill_disk(self, body: Json) -> Json:
        """Make a sandbox's disk full, or as it was."""
        instance = self._instance(body.get("instance"))
        full = body.get("full", True)
        if not isinstance(full, bool):
            raise ValueError("full must be true or false")
        if instance.machine is None:
            raise ValueError(f"instance {instance.instance_id} is {instance.status}")
        await instance.machine.fill_disk(full)
        return {"full": full}

    async def reset(self, body: Json) -> Json:
        """Make the account as new."""
        self._streams.clear()
        await self._world.reset()
        return {}

    async def answer(self, request: Request) -> JsonResponse:
        """Return the response to a request below ``/_emulator``."""
        raw = await read(request)
        origin = request.headers.get("origin")
        if origin is not None and origin.rpartition("//")[2] != request.headers.get("host"):
            return JsonResponse({"error": f"a page of {origin[:100]} may not control the emulator"}, 403)
        method, path = request.method, raw_path(request.scope)
        route = path[len("/_emulator") :].rstrip("/")
        match = re.fullmatch(r"/instances/([^/]+)/(die|disk)", route)
        handler = _ROUTES.get((method, f"/instances/{{id}}/{match[2]}" if match else route))
        if handler is None:
            return JsonResponse({"error": f"there is no {method} {path[:100]}; see ags_flows.emulator.controls"}, 404)
        try:
            body = _body(request.headers, raw)
            if match:
                body["instance"] = match[1]
            return JsonResponse(await handler(self, body))
        except (Refusal, ValueError) as error:
            return JsonResponse({"error": str(error)}, 404 if isinstance(error, Refusal) else 400)

    def _instance(self, instance_id: Any) -> Instance:
        instance = self._world.find_instance(str(instance_id))
        if instance is None:
            raise Refusal("ResourceNotFound.SandboxInstance", f"there is no instance {instance_id}")
        return instance

    @staticmethod
    def _shown(instance: Instance) -> Json:
        processes = instance.machine.processes() if instance.machine is not None else []
        return {
            **instance.shown(),
            "StatusReason": instance.status_reason,
            "Lifecycle": asdict(instance.lifecycle),
            "Processes": processes,
        }


def _latest(instances: Iterable[Instance]) -> Iterator[Instance]:
    """Return the instances that have not ended, and the newest ones that have."""
    ended = 0
    for instance in instances:
        ended += instance.ended
        if not instance.ended or ended <= MOST_ENDED:
            yield instance


_ROUTES: dict[tuple[str, str], Callable[[Controls, Json], Awaitable[Json]]] = {
    ("GET", ""): Controls.overview,
    ("GET", "/requests"): Controls.requests,
    ("POST", "/faults"): Controls.add_fault,
    ("DELETE", "/faults"): Controls.clear_faults,
    ("POST", "/streams"): Controls.add_stream_fault,
    ("DELETE", "/streams"): Controls.clear_stream_faults,
    ("POST", "/transitions"): Controls.set_transition,
    ("DELETE", "/transitions"): Controls.reset_transitions,
    ("POST", "/limits"): Controls.set_limits,
    ("POST", "/clock"): Controls.advance_clock,
    ("POST", "/client-tokens"): Controls.set_client_tokens,
    ("POST", "/tokens/expire"): Controls.expire_tokens,
    ("POST", "/instances/{id}/die"): Controls.die,
    ("POST", "/instances/{id}/disk"): Controls.fill_disk,
    ("POST", "/reset"): Controls.reset,
}


def _body(headers: Mapping[str, str], raw: bytes) -> Json:
    if not raw.strip():
        return {}
    if not headers.get("content-type", "").lower().startswith("application/json"):
        raise ValueError("a body needs Content-Type: application/json")
    try:
        body = json.loads(raw)
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body
