"""Rules for arguments of public tasks, one for each kind of value, checked before anything is sent or started."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ags_flows.errors import ConfigurationError

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?", re.ASCII)


def check_seconds(value: float | None, field: str = "timeout", *, positive: bool = False) -> float | None:
    """Return a number of seconds, None as it is.

    Args:
        value: A finite number.
        field: The name that the error gives.
        positive: Whether 0 is refused.

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
    """Return a whole number, None as it is.

    Args:
        value: A whole number.
        field: The name that the error gives.
        least: The smallest number that is allowed.

    Raises:
        ConfigurationError: `value` is not a whole number, or is too small.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{field} must be a whole number >= {least}, got {value!r}.")
    return value


def check_name(value: str | None, field: str) -> str | None:
    """Return a text that is not empty, such as a working directory; None as it is.

    Args:
        value: A text.
        field: The name that the error gives.

    Raises:
        ConfigurationError: `value` is not a text, is empty, or has a zero byte.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigurationError(
            f"{field} must be a text that is not empty and has no zero byte, got {value!r}.",
            hint=f"Leave {field} out for the default.",
        )
    return value


def check_user(value: str | None) -> str | None:
    """Return the name of a user in a sandbox, None as it is.

    Raises:
        ConfigurationError: No user can have this name.
    """
    if value is None or (isinstance(value, str) and _USER.fullmatch(value)):
        return value
    raise ConfigurationError(
        f"user must be the name of a user, got {value!r}.", hint="Leave user out for the default user, or give 'root'."
    )


def check_text(value: object, field: str) -> str:
    """Return code as it is.

    Raises:
        ConfigurationError: `value` is not a text.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{field} must be a text, got {value!r}.")
    return value


def check_environment(values: Mapping[str, Any] | None, field: str = "env") -> dict[str, str]:
    """Return environment variables as text: numbers are converted, booleans become `true` and `false`.

    Args:
        values: Variable name to text, number or boolean.
        field: The name that the error gives.

    Raises:
        ConfigurationError: A name or a value cannot be one of the environment; the message names the variable.

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
            f"{field}: {name!r} is not the name of a variable.",
            hint="A name is a text that is not empty, without '=' and zero bytes.",
        )
    return name


def _text_of(name: str, value: object, field: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{field}: {name} must be a text, a finite number or a boolean, got {type(value).__name__}.",
            hint="Convert it, for example by json.dumps.",
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
