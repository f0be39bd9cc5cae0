"""What E2B's network settings ask of a sandbox: all of the network, or none of it."""

from __future__ import annotations

from typing import Any

from ..world.refusal import Refusal

Json = dict[str, Any]

_EVERYTHING = {"0.0.0.0/0", "::/0", "0.0.0.0", "*"}
_UNABLE = ("egressProxy", "rules", "dnsServers", "httpsPorts")


def allows(network: Json, internet: bool | None) -> bool:
    """Whether a sandbox with these settings may reach other machines.

    Raises:
        Refusal: ``InvalidParameter`` for a setting that the emulator cannot enforce.
    """
    for name in _UNABLE:
        if network.get(name):
            raise Refusal("InvalidParameter", f"The emulator cannot enforce network.{name}; leave it out.")
    if not isinstance(network.get("maskRequestHost") or "", str):
        raise Refusal("InvalidParameter", "network.maskRequestHost must be a string.")
    denied, allowed = network.get("denyOut") or [], network.get("allowOut") or []
    if not isinstance(denied, list) or not isinstance(allowed, list):
        raise Refusal("InvalidParameter", "network.denyOut and network.allowOut must be lists.")
    everything = bool(denied) and all(str(each) in _EVERYTHING for each in denied)
    if (denied and not everything) or (everything and allowed):
        raise Refusal(
            "InvalidParameter",
            "The emulator can deny all outgoing traffic or none, not that of single addresses or domains.",
        )
    return internet is not False and not everything


def kept(network: Json) -> Json:
    """Return the settings that are shown again."""
    names = ("allowOut", "denyOut", "allowPublicTraffic", "maskRequestHost")
    return {name: network[name] for name in names if name in network}
