"""What E2B's network settings ask of a sandbox, and what of them the emulator cannot do."""

from __future__ import annotations

from typing import Any

from ags_flows.emulator.reach import EVERYWHERE, Reach
from ags_flows.emulator.sandbox.isolation import isolation
from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]

_UNABLE = ("egressProxy", "rules", "dnsServers")
_RULES = ("allowOut", "denyOut")
_KEPT = (*_RULES, "allowPublicTraffic", "maskRequestHost", "httpsPorts")


def reach_of(network: Json, internet: bool | None) -> Reach:
    """Return which other machines a sandbox with these settings may reach.

    Raises:
        Refusal: ``InvalidParameter`` for a setting that is wrong, or that the emulator cannot enforce.
    """
    for name in _UNABLE:
        if network.get(name):
            raise Refusal("InvalidParameter", f"The emulator cannot enforce network.{name}; leave it out.")
    if not isinstance(network.get("maskRequestHost") or "", str):
        raise Refusal("InvalidParameter", "network.maskRequestHost must be a string.")
    ports = network.get("httpsPorts") or []
    if not isinstance(ports, list) or not all(type(port) is int and 1 <= port <= 65535 for port in ports):
        raise Refusal("InvalidParameter", "network.httpsPorts must be a list of ports, 1 to 65535.")
    try:
        reach = Reach.of(network, internet)
    except ValueError as error:
        raise Refusal("InvalidParameter", f"{error}.") from None
    if reach != EVERYWHERE and isolation().bwrap is None:
        raise Refusal(
            "InvalidParameter",
            "The emulator has no namespaces on this machine, so it cannot keep a sandbox from the network: leave out "
            "network.allowOut, network.denyOut and allow_internet_access.",
        )
    return reach


def kept(network: Json) -> Json:
    """Return the settings that are shown again."""
    return {name: network[name] for name in _KEPT if network.get(name) is not None}


def updated(network: Json, change: Json) -> Json:
    """Return settings after an update, which replaces all rules for what goes out and nothing else."""
    rest = {name: value for name, value in network.items() if name not in _RULES}
    return {**rest, **{name: change[name] for name in _RULES if change.get(name)}}
