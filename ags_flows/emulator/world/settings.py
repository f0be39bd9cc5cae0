"""How one emulator is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SECRET_ID = "AKIDemulatorofags000000000000000000"
SECRET_KEY = "emulatorofags0000000000000000000"
API_KEY = "e2b_a95e0000000000000000000000000000000a95e0"
"""The development keys, the same in every emulator, so that a shell or a config file can keep them.

They are worth nothing anywhere else, and the emulator listens on loopback only.
"""

DEFAULT_REGION = "ap-guangzhou"
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Settings:
    """The settings of one emulator.

    Args:
        directory: Where sandboxes have their files; it belongs to this emulator alone.
        volumes: What stands for buckets, file systems and images, see `mounts`.
        keep: Whether what is in ``directory`` is to survive the emulator.
        secret_id: The key id that the Cloud API accepts.
        secret_key: The secret to it.
        api_key: The key that the E2B API accepts, besides those made by CreateAPIKey.
        region: Where E2B clients create sandboxes.
        quotas: Whether quotas are enforced (10 running instances and so on).
        rates: Whether request rates are enforced.
        strict_roles: Whether images of enterprise and personal registries need RoleArn.
        token_lifetime: Seconds for which an acquired access token is good.
        retention: Seconds for which an instance that has ended stays listed; at most 1,000 are.
        envd_version: The version of envd that E2B clients see.
        start: ``async``: StartSandboxInstance returns an instance that is STARTING. ``at-once``: it returns when the
            instance is RUNNING, which some clients rely on. None: as in the profile, else ``async``.
        tls: Whether HTTPS is spoken too, on the same port.
        host_ports: Ports of this machine that sandboxes reach at their own loopback interface.
        profile: How a recorded account behaved, see `world.profile`.

    Raises:
        ValueError: ``start`` is not known, or a number is out of range.
    """

    directory: Path
    volumes: Path
    keep: bool = False
    secret_id: str = SECRET_ID
    secret_key: str = SECRET_KEY
    api_key: str = API_KEY
    region: str = DEFAULT_REGION
    quotas: bool = False
    rates: bool = False
    strict_roles: bool = False
    token_lifetime: float = 12 * 3600.0
    retention: float = 3600.0
    envd_version: str = "0.6.13"
    start: Literal["async", "at-once"] | None = None
    tls: bool = False
    host_ports: tuple[int, ...] = ()
    profile: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values that a user types."""
        if self.start not in (None, "async", "at-once"):
            raise ValueError(f"start must be async or at-once, got {self.start!r}")
        if not self.retention >= 0:
            raise ValueError(f"retention must be >= 0 seconds, got {self.retention!r}")
        for port in self.host_ports:
            if not 1 <= port <= HIGHEST_PORT:
                raise ValueError(f"a host port must be 1 to {HIGHEST_PORT}, got {port}")
