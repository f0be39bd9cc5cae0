"""Durations as AGS writes them: ``5m``, ``300s``, ``1h``, ``1h30m``, ``5m0s``, or a bare number of seconds."""

from __future__ import annotations

import re

from ags_flows.emulator.world.refusal import Refusal

_PART = re.compile(r"([0-9]+)(h|m|s)")
_WHOLE = re.compile(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?")
_UNIT = {"h": 3600, "m": 60, "s": 1}

DAY = 24 * 3600


def seconds_of(text: str, field: str, *, least: int = 1, most: int = DAY) -> int:
    """Return the duration in seconds.

    Args:
        text: What the caller wrote.
        field: The field's name, for the message.
        least: The shortest allowed, in seconds.
        most: The longest allowed, in seconds.

    Raises:
        Refusal: ``InvalidParameterValue.Timeout`` when it is not a duration or is out of range.
    """
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        seconds = int(text)
    elif text and len(text) <= 30 and re.fullmatch(_WHOLE, text):
        seconds = sum(int(count) * _UNIT[unit] for count, unit in _PART.findall(text))
    else:
        raise Refusal(
            "InvalidParameterValue.Timeout",
            f"{field} {text!r} is not a duration; write it as 5m, 300s or 1h.",
        )
    if not least <= seconds <= most:
        raise Refusal(
            "InvalidParameterValue.Timeout",
            f"{field} {text!r} is out of range: at least {least}s, at most {most // 3600}h.",
        )
    return seconds
