"""Durations in the format of AGS: `30s`, `5m`, `1h30m`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import shown_value

MINIMUM_SECONDS = 30
MAXIMUM_SECONDS = 24 * 3600

_FORM = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?|(\d{1,9})", re.ASCII)


def parse_duration(value: str | int | float | timedelta, *, field: str | None = "timeout") -> int:
    """Return whole seconds for a duration within the limits of an instance's timeout.

    Args:
        value: `"5m"`, `"300s"`, `"1h30m"`, a bare number of seconds, or a `timedelta`.
        field: The name that the error gives; None where the caller adds it.

    Returns:
        Whole seconds, from 30 to 86,400: the limits of AGS for the timeout of an instance.

    Raises:
        ConfigurationError: The format is invalid, or the duration is out of range.

    Example:
        ```python
        assert parse_duration("1h30m") == 5400
        ```
    """
    seconds = _seconds(value)
    given = f"{field}={shown_value(value)}" if field else shown_value(value)
    if seconds is None:
        raise ConfigurationError(
            f"{given} is not a duration.",
            hint="Write hours, minutes and seconds in this order, such as '30s', '5m' or '1h30m'.",
        )
    if not MINIMUM_SECONDS <= seconds <= MAXIMUM_SECONDS:
        raise ConfigurationError(f"{given} is out of range.", hint="AGS takes timeouts from 30s to 24h.")
    return seconds


def check_duration(value: Any, field: str = "timeout") -> Any:
    """Return the timeout of an instance as it is.

    Raises:
        ConfigurationError: It is not a duration, or is out of range.
    """
    parse_duration(value, field=field)
    return value


def format_duration(seconds: int) -> str:
    """Return the format that AGS documents for a number of seconds: `"90s"`.

    It has only seconds, because AGS does not document compound formats such as `1m30s`.
    """
    return f"{seconds}s"


def _seconds(value: object) -> int | None:
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    match = _FORM.fullmatch(value.strip())
    if not match or not any(match.groups()):
        return None
    hours, minutes, seconds, bare = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + bare
