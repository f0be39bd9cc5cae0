"""How one emulator is set up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The development keys: the same in every emulator, so that a shell or a config file can hold them for good. They are
#: worth nothing anywhere else, and the emulator listens on loopback only.
SECRET_ID = "AKIDemulatorofags000000000000000000"
SECRET_KEY = "emulatorofags0000000000000000000"
API_KEY = "e2b_a95e0000000000000000000000000000000a95e0"
DEFAULT_REGION = "ap-guangzhou"


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
        strict_roles: Whether images of enterprise and personal registries need RoleArn.
        token_lifetime: Seconds for which an acquired access token is good.
        retention: Seconds for which a stopped instance stays listed.
        envd_version: The version that E2B clients are told.
        app_id: The account's number.
        host_ports: Ports of this machine that sandboxes reach at their own loopback interface.
    """

    directory: Path
    volumes: Path
    keep: bool = False
    secret_id: str = SECRET_ID
    secret_key: str = SECRET_KEY
    api_key: str = API_KEY
    region: str = DEFAULT_REGION
    strict_roles: bool = False
    token_lifetime: float = 12 * 3600.0
    retention: float = 3600.0
    envd_version: str = "0.6.13"
    app_id: int = 1_250_000_000
    host_ports: tuple[int, ...] = ()
