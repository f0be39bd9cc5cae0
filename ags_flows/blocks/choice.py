"""The configuration that a caller chose: a block, the name of a saved block, or nothing for the environment."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import BeforeValidator

from ags_flows.blocks.config import AGSConfig
from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import check_name


def resolve_config(chosen: Any = None) -> AGSConfig:
    """Return the configuration for what was given as `config`.

    Args:
        chosen: An `AGSConfig` or its fields, the name of a saved block, or None (or an empty name) for the environment.

    Raises:
        ConfigurationError: The Prefect server has no block of that name, or the fields are invalid.
        BlockError: A field of the saved block is invalid.

    Example:
        ```python
        AGSConfig(region="ap-shanghai").save("production", overwrite=True)
        assert resolve_config("production").region == "ap-shanghai"
        ```
    """
    if isinstance(chosen, AGSConfig):
        return chosen
    if isinstance(chosen, dict):
        return AGSConfig(**chosen)
    if not isinstance(chosen, str) and chosen is not None:
        raise ConfigurationError(f"config must be an AGSConfig or the name of a block, got {type(chosen).__name__}.")
    if chosen is None or not chosen.strip():
        return AGSConfig()
    check_name(chosen, "config")
    name = chosen.strip().removeprefix(f"{AGSConfig.get_block_type_slug()}/")
    loading: Any = AGSConfig.aload(name)
    try:
        # Also where an event loop runs: there, `load` would return a coroutine.
        loaded: AGSConfig = run_coro_as_sync(loading)
    except ValueError as error:
        raise ConfigurationError(
            f"config: there is no AGS Config block named {name!r}.",
            hint="`prefect block ls` lists the blocks; AGSConfig(...).save(NAME) saves one.",
        ) from error
    return loaded


ConfigChoice: TypeAlias = Annotated[
    AGSConfig | str | None, BeforeValidator(resolve_config, json_schema_input_type=AGSConfig | str)
]
"""The type of a flow's parameter `config`.

Forms of the Prefect UI offer the name of a block as text, and the saved blocks to choose from. The flow gets an
`AGSConfig`; called without validation, it gets what was given: see `resolve_config`.
"""
