"""Which other machines a sandbox may reach: E2B's lists of allowed and denied hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Block = ipaddress.IPv4Network | ipaddress.IPv6Network

_EVERYTHING = frozenset({"0.0.0.0/0", "::/0", "0.0.0.0", "*", "ALL_TRAFFIC"})
_NAME = re.compile(r"(\*\.)?(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_WITH_PORT = re.compile(r"[^:\[\]]+:\d+|\[.+\]:\d+")


@dataclass(frozen=True)
class Reach:
    """Where connections of a sandbox may go.

    The allowed list has precedence. A host on neither list is allowed, unless everything is denied.

    Attributes:
        closed: Whether everything that is not allowed is denied.
        names: Allowed hosts; ``*.example.com`` stands for all below ``example.com``.
        allowed: Allowed blocks of IP addresses.
        denied: Denied blocks of IP addresses.
    """

    closed: bool = False
    names: tuple[str, ...] = ()
    allowed: tuple[Block, ...] = ()
    denied: tuple[Block, ...] = ()

    @classmethod
    def of(cls, network: Mapping[str, Any], internet: bool | None = None) -> Reach:
        """Read E2B's network settings.

        Args:
            network: The settings, with ``allowOut`` and ``denyOut``.
            internet: False denies everything, as ``denyOut`` of all traffic does.

        Raises:
            ValueError: An entry is not valid. The message has the entry and the rule.
        """
        denied = _entries(network, "denyOut")
        allowed = _entries(network, "allowOut")
        closed = internet is False or any(entry in _EVERYTHING for entry in denied)
        blocks = [(entry, _block(entry)) for entry in denied if entry not in _EVERYTHING]
        for entry, block in blocks:
            if block is None:
                raise ValueError(f"network.denyOut: {entry!r} is neither an IP address nor a block of IP addresses")
        if any(entry in _EVERYTHING for entry in allowed):
            return cls()
        names = tuple(entry.lower().rstrip(".") for entry in allowed if _block(entry) is None)
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"network.allowOut: {name!r} is neither an IP address nor a host name")
        if names and not closed:
            raise ValueError(
                "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to block all "
                f"other traffic: network.denyOut needs 0.0.0.0/0 beside network.allowOut's {names[0]!r}"
            )
        addresses = tuple(block for entry in allowed if (block := _block(entry)) is not None)
        return cls(closed, names, addresses, tuple(block for _, block in blocks if block is not None))

    @property
    def nowhere(self) -> bool:
        """Whether nothing can be reached."""
        return self.closed and not self.names and not self.allowed

    def permits(self, host: str, address: str) -> bool:
        """Return True if a connection may be made.

        Args:
            host: The requested host: a name or an IP address.
            address: Its IP address.
        """
        asked = host.lower().rstrip(".")
        if any(asked == name or (name[:2] == "*." and asked.endswith(name[1:])) for name in self.names):
            return True
        place = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(place, ipaddress.IPv6Address) and place.ipv4_mapped is not None:
            place = place.ipv4_mapped
        if any(place in block for block in self.allowed):
            return True
        return not self.closed and not any(place in block for block in self.denied)


EVERYWHERE = Reach()
NOWHERE = Reach(closed=True)


def _entries(network: Mapping[str, Any], field: str) -> Sequence[str]:
    entries = network.get(field) or []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"network.{field} must be a list of strings")
    for entry in entries:
        if _WITH_PORT.fullmatch(entry) and _block(entry) is None:
            raise ValueError(f"network.{field}: {entry!r} names a port; rules are for whole hosts")
    return entries


def _block(entry: str) -> Block | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
