"""Calls of the actions of AGS with raw parameters: what tools and instances are built on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from typing_extensions import Self

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.quotas import with_usage
from ags_flows.cloud.transport import Transport
from ags_flows.errors import QuotaExceededError


class Calls:
    """The actions of one account in one region. Thread-safe and synchronous.

    Every method raises the errors of `ags_flows.cloud.error_mapping`, with code and RequestId. No call is repeated
    here: only the caller knows whether a repetition is safe.
    """

    def __init__(self, connection: Connection) -> None:
        """Check the keys; nothing is sent.

        Raises:
            CredentialsError: There are no keys.
        """
        self.connection = connection
        self._transport = Transport(connection)
        self._timeout: float | None = None

    def call(self, action: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call any action of AGS with raw parameters: for what is newer than this package."""
        try:
            return self._send(action, dict(parameters or {}))
        except QuotaExceededError as error:
            full = with_usage(self._send, error)
        raise full

    def with_timeout(self, seconds: float) -> Self:
        """Return a view of this control plane with another time limit for each request.

        The view shares connections and pace with this control plane.

        Args:
            seconds: Seconds to connect, and seconds to wait for data.
        """
        view = copy.copy(self)
        view._timeout = seconds
        return view

    def close(self) -> None:
        """Close the connections that are not in use; the next call opens one again."""
        self._transport.close()

    def _send(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return self._transport.call(action, parameters, self._timeout)
