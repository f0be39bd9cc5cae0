"""What all parts of the facade share: a configuration, the control plane, and repetition that does nothing twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError
from ags_flows.run.task_options import LONGEST_RETRY_AFTER, RETRIES

R = TypeVar("R")


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


def persistently(action: Callable[[], R]) -> R:
    """Do something again while its error says that it is worth it: as often, and with the waits, that tasks have.

    Whoever calls sees to it that a repetition is safe: a creation keeps its ClientToken.
    """
    for attempt in range(RETRIES):
        try:
            return action()
        except AGSFlowsError as error:
            if not error.retryable:
                raise
            wait = 2**attempt * random.uniform(1.0, 1.5)
            time.sleep(min(max(wait, error.retry_after or 0.0), LONGEST_RETRY_AFTER))
    return action()
