"""What all parts of the facade share: a configuration and the control plane."""

from __future__ import annotations

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane


class Account:
    """One account of AGS in one region.

    Attributes:
        config: Where AGS is and the defaults.
    """

    def __init__(self, config: AGSConfig | None = None) -> None:
        """Take the configuration, by default the environment's; nothing is sent."""
        self.config = config if config is not None else AGSConfig()

    @property
    def connection(self) -> Connection:
        """Addresses and keys as they are now."""
        return self.config.connection()

    @property
    def control(self) -> ControlPlane:
        """The control plane, whose connections all runtimes of this account share.

        Raises:
            CredentialsError: There are no keys.
        """
        return ControlPlane.of(self.connection)
