"""Checks for arguments of public tasks, one for each kind of value. They run before any request."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ags_flows.errors import ConfigurationError

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?", re.ASCII)


def check_seconds(value: float | None, field: str = "timeout", *, positive: bool = False) -> float | None:
    """Check a number of seconds and return it. None is valid.

    Args:
        value: A finite number, or None.
        field: Name of the argument, for the error message.
        positive: Whether 0 is invalid.

    Raises:
        ConfigurationError: `value` is not a finite number, or is too small.

    Example:
        ```python
        assert check_seconds(1.5) == 1.5
        ```
    """
    if value is None:
        return None
    rule = "> 0" if positive else ">= 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(f"{field} must be a finite number of seconds {rule}, got {value!r}.")
    if value < 0 or (positive and value == 0):
        raise ConfigurationError(f"{field} must be {rule} seconds, got {value!r}.")
    return value


def check_count(value: int | None, field: str = "limit", *, least: int = 0) -> int | None:
    """Check an integer and return it. None is valid.

    Args:
        value: An integer, or None.
        field: Name of the argument, for the error message.
        least: The smallest valid number.

    Raises:
        ConfigurationError: `value` is not an integer, or is too small.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{field} must be an integer >= {least}, got {value!r}.")
    return value


def check_name(value: str | None, field: str) -> str | None:
    """Check a non-empty string, such as a working directory, and return it. None is valid.

    Args:
        value: A string, or None.
        field: Name of the argument, for the error message.

    Raises:
        ConfigurationError: `value` is not a string, is empty, or has a null character.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigurationError(
            f"{field} must be a non-empty string without null characters, got {value!r}.",
            hint=f"Omit {field} to use the default.",
        )
    return value


def check_user(value: str | None) -> str | None:
    """Check the name of a user in a sandbox and return it. None is valid.

    Raises:
        ConfigurationError: `value` is not a valid user name.
    """
    if value is None or (isinstance(value, str) and _USER.fullmatch(value)):
        return value
    raise ConfigurationError(
        f"user must be a valid user name, got {value!r}.", hint="Omit user to use the default user, or pass 'root'."
    )


def check_text(value: object, field: str) -> str:
    """Check a string, which may be empty, and return it.

    Raises:
        ConfigurationError: `value` is not a string.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{field} must be a string, got {value!r}.")
    return value


def check_environment(values: Mapping[str, Any] | None, field: str = "env") -> dict[str, str]:
    """Return environment variables as strings. Numbers are converted; booleans become `true` and `false`.

    Args:
        values: Variable name to string, number or boolean. None is equal to an empty mapping.
        field: Name of the argument, for the error message.

    Raises:
        ConfigurationError: A name or a value is invalid. The message has the name of the variable.

    Example:
        ```python
        assert check_environment({"PORT": 8000, "DEBUG": True}) == {"PORT": "8000", "DEBUG": "true"}
        ```
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{field} must be a mapping of names to values, got {values!r}.")
    return {_variable(name, field): _text_of(name, value, field) for name, value in values.items()}


def _variable(name: object, field: str) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name or not _is_unicode(name):
        raise ConfigurationError(
            f"{field}: {name!r} is not a valid variable name.",
            hint="A name is a non-empty string without '=' and null characters.",
        )
    return name


def _text_of(name: str, value: object, field: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{field}: {name} must be a string, a finite number or a boolean, got {type(value).__name__}.",
            hint="Convert it, for example with json.dumps.",
        )
    if "\0" in value or not _is_unicode(value):
        raise ConfigurationError(f"{field}: {name} has a zero byte or half a pair of surrogates.")
    return str(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
