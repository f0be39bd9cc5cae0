"""What the gateway needs to know of an instance."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal

from starlette.types import ASGIApp, Scope

from ags_flows.emulator.signed_urls import Expired, signed
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.world import World


class InstanceTarget:
    """One instance, as the gateway sees it at the moment of a request."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @property
    def instance_id(self) -> str:
        """The instance's id."""
        return self._instance.instance_id

    @property
    def state(self) -> Literal["running", "paused", "gone"]:
        """Whether it can be reached."""
        if self._instance.status == "RUNNING" and self._instance.machine is not None:
            return "running"
        return "paused" if self._instance.status in ("PAUSING", "PAUSED", "RESUMING") else "gone"

    @property
    def auth_mode(self) -> Literal["TOKEN", "PUBLIC", "NONE"]:
        """Which ports need a token: all, envd's alone, or none."""
        mode = self._instance.auth_mode
        return "PUBLIC" if mode == "PUBLIC" else "NONE" if mode == "NONE" else "TOKEN"

    @property
    def by_e2b(self) -> bool:
        """Whether an E2B client made it: then responses are as E2B's."""
        return bool(self._instance.e2b)

    @property
    def masked_host(self) -> str | None:
        """The host that servers in it see in place of the real one; ``${PORT}`` stands for the port."""
        host = (self._instance.e2b.get("network") or {}).get("maskRequestHost")
        return str(host) if host else None

    def speaks_tls(self, port: int) -> bool:
        """Return True if what listens on a port speaks HTTPS: E2B's ``network.httpsPorts`` names such ports."""
        return port in ((self._instance.e2b.get("network") or {}).get("httpsPorts") or [])

    def accepts(self, token: str | None) -> bool:
        """Return True if the token opens the ports other than envd's."""
        return self._instance.tokens.accepts_traffic(token)

    @property
    def envd_app(self) -> ASGIApp:
        """The application on port 49983. It checks tokens itself, since signed URLs need none."""
        machine = self._instance.machine
        assert machine is not None
        return machine.envd_app

    @property
    def code_app(self) -> ASGIApp | None:
        """The application on port 49999, or None if that is an ordinary port."""
        machine = self._instance.machine
        return machine.code_app if machine is not None else None

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port inside; blocking.

        Raises:
            ConnectionRefusedError: when nothing listens there.
        """
        machine = self._instance.machine
        if machine is None:
            raise ConnectionRefusedError(f"instance {self._instance.instance_id} is not running")
        return machine.connect(port)


def targets_of(world: World) -> Callable[[str], InstanceTarget | None]:
    """Return how the gateway finds an instance by its id."""

    def lookup(instance_id: str) -> InstanceTarget | None:
        instance = world.find_instance(instance_id)
        return InstanceTarget(instance) if instance is not None else None

    return lookup


def signer_of(world: World) -> Callable[[Scope], str | None]:
    """Return a function that finds the instance that signed a request's URL, also if one of them has expired."""

    def find(scope: Scope) -> str | None:
        for instance in world.all_instances():
            try:
                if signed(scope, instance.tokens.signing_tokens()):
                    return instance.instance_id
            except Expired:
                return instance.instance_id
        return None

    return find
