"""Secrets travel by name: their values are read from Prefect Secret blocks where they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.blocks.system import Secret

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import check_environment
from ags_flows.run.now import now

_recorded: ContextVar[set[str] | None] = ContextVar("recorded", default=None)


def load_secrets(names: Mapping[str, str] | None) -> dict[str, str]:
    """Return the values of Prefect Secret blocks as text.

    A text is returned as it was saved. Any other value (a mapping, a list, a number, a boolean) is returned as JSON.

    Args:
        names: Variable name to name of the block.

    Raises:
        ConfigurationError: There is no such block, or no variable can have its value; the message names it.
    """
    values = {}
    for variable, block in (names or {}).items():
        try:
            secret = now(Secret.load(block))
        except ValueError as error:
            raise ConfigurationError(
                f"secrets: there is no Secret block named {block!r} (for {variable}).",
                hint=f"Save one in the Prefect UI, or by Secret(value=...).save({block!r}).",
            ) from error
        # Not get(), which parses texts that happen to be JSON: 1.10 would become 1.1.
        value = secret.value.get_secret_value()
        values[variable] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    recorded = _recorded.get()
    if recorded is not None:
        recorded.update(values.values())
    return check_environment(values, "secrets")


def merged(env: Mapping[str, str] | None, names: Mapping[str, str] | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return an environment with the values of secrets, and these values alone.

    Args:
        env: Variables.
        names: Variable name to name of the block.

    Raises:
        ConfigurationError: A variable is in both, or there is no such block.
    """
    if both := sorted({*(env or {})} & {*(names or {})}):
        raise ConfigurationError(f"env: {', '.join(both)} is in secrets too.", hint="Give each variable once.")
    hidden = load_secrets(names)
    return {**(env or {}), **hidden}, hidden


@contextmanager
def recorded_secrets() -> Iterator[set[str]]:
    """Record the secrets that are loaded in a block, such as by the steps of a function of the user.

    Yields:
        The values so far.
    """
    values: set[str] = set()
    token = _recorded.set(values)
    try:
        yield values
    finally:
        _recorded.reset(token)
        if (outer := _recorded.get()) is not None:
            outer.update(values)
