"""What all parts of the facade share: a configuration and the control plane."""

from __future__ import annotations

from typing_extensions import Unpack

from ags_flows.blocks import AGSConfig, ConfigFields, resolve_config, with_fields
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane


class Account:
    """One account of AGS in one region.

    Attributes:
        config: Where AGS is and the defaults.
    """

    def __init__(self, config: AGSConfig | str | None = None, **fields: Unpack[ConfigFields]) -> None:
        """Take the configuration; nothing is sent to AGS."""
        self.config = with_fields(None if config is None else resolve_config(config), **fields)

    @property
    def connection(self) -> Connection:
        """URLs and keys as they are now."""
        return self.config.connection()

    @property
    def control(self) -> ControlPlane:
        """The control plane, whose connections all runtimes of this account share.

        Raises:
            CredentialsError: There are no keys.
        """
        return ControlPlane.of(self.connection)
