"""An emulator for the length of a `with` block, and a configuration for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from ags_flows.blocks import AGSConfig, TencentCloudCredentials

if TYPE_CHECKING:
    from ags_flows.emulator import Emulator


@contextmanager
def running_emulator(**options: Any) -> Iterator[Emulator]:
    """Yield a running emulator on a free port; afterwards nothing of it is left.

    Args:
        **options: Those of `ags_flows.emulator.Emulator`, such as `state=directory`.

    Yields:
        The emulator: URLs and keys, faults on request, a clock that can be advanced.

    Example:
        ```python
        with running_emulator() as emulator:
            print(emulator.url)
        ```
    """
    from ags_flows.emulator import Emulator

    with Emulator(port=0, **options) as emulator:
        yield emulator


def config_for(emulator: Emulator, **fields: Any) -> AGSConfig:
    """Return a configuration that points both planes at an emulator.

    Args:
        emulator: A running one.
        **fields: Further fields of `AGSConfig`.

    Example:
        ```python
        with running_emulator() as emulator:
            config = config_for(emulator, startup_timeout=30)
        ```
    """
    keys = TencentCloudCredentials(secret_id=SecretStr(emulator.secret_id), secret_key=SecretStr(emulator.secret_key))
    return AGSConfig(**{"http_endpoint": emulator.url, "domain": emulator.url, "credentials": keys, **fields})
