"""The configuration that a caller chose: a block, the name of a saved block, or nothing for the environment."""

from __future__ import annotations

from typing import Any

from prefect.utilities.asyncutils import run_coro_as_sync

from ags_flows.blocks.config import AGSConfig
from ags_flows.errors import ConfigurationError


def resolve_config(chosen: AGSConfig | str | None = None) -> AGSConfig:
    """Return the configuration for what was given as `config`.

    Args:
        chosen: An `AGSConfig`, the name of a saved block, or None (or an empty name) for the environment.

    Raises:
        ConfigurationError: The Prefect server has no block of that name, or a field of the block is wrong.

    Example:
        ```python
        AGSConfig(region="ap-shanghai").save("production", overwrite=True)
        assert resolve_config("production").region == "ap-shanghai"
        ```
    """
    if isinstance(chosen, AGSConfig):
        return chosen
    if chosen is None or not chosen.strip():
        return AGSConfig()
    name = chosen.strip().removeprefix(f"{AGSConfig.get_block_type_slug()}/")
    loading: Any = AGSConfig.aload(name)
    try:
        # Also where an event loop runs: there, `load` would return a coroutine.
        loaded: AGSConfig = run_coro_as_sync(loading)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(
            f"config: there is no AGS Config block named {name!r}.",
            hint="`prefect block ls` lists the blocks; AGSConfig(...).save(NAME) saves one.",
        ) from error
    return loaded
