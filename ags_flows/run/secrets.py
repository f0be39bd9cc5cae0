"""Secrets travel by name: their values are read from Prefect Secret blocks where they are needed."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.blocks.system import Secret

from ags_flows.errors import ConfigurationError


def load_secrets(names: Mapping[str, str] | None) -> dict[str, str]:
    """Return the values of Prefect Secret blocks.

    Args:
        names: Variable name to name of the block.

    Raises:
        ConfigurationError: There is no such block; the message names it.
    """
    values = {}
    for variable, block in (names or {}).items():
        try:
            secret = Secret.load(block)
        except ValueError as error:
            raise ConfigurationError(
                f"secrets: there is no Secret block named {block!r} (for {variable}).",
                hint=f"Save one in the Prefect UI, or by Secret(value=...).save({block!r}).",
            ) from error
        values[variable] = str(secret.get())  # type: ignore[union-attr]
    return values
