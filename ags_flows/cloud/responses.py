"""Responses of a sandbox that are taken into memory: bounded, and JSON or an error. A sandbox is not trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

LARGEST_RESPONSE = 32 << 20
"""Bytes of a list, or of another response that is not a stream."""

LARGEST_ERROR = 64 << 10
"""Bytes of an error in the place of a stream."""

MOST_NESTED = 100
"""Levels of JSON for parsers that would end the process with an overflow of the stack."""

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[][{}]")

INVALID = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What is raised for a response that is not JSON, is nested too deeply, or has other fields than it should."""


class TooLarge(Exception):
    """A response has more than `LARGEST_RESPONSE` bytes."""

    def __init__(self) -> None:
        super().__init__(f"The response has more than {LARGEST_RESPONSE:,} bytes")


def bounded(pieces: Iterable[Any]) -> bytes:
    """Return a response.

    Raises:
        TooLarge: It has more than `LARGEST_RESPONSE` bytes.
    """
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > LARGEST_RESPONSE:
            raise TooLarge
    return bytes(whole)


def beginning(pieces: Iterable[bytes]) -> bytes:
    """Return the first `LARGEST_ERROR` bytes of a response; the rest is not read."""
    read = bytearray()
    for piece in pieces:
        read += piece
        if len(read) >= LARGEST_ERROR:
            break
    return bytes(read[:LARGEST_ERROR])


def is_nested_deeply(text: bytes) -> bool:
    """Return True if a JSON text has more than `MOST_NESTED` levels."""
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_NESTED:
            return True
    return False


def parsed(text: str | bytes) -> Any:
    """Return a JSON value; None in the place of NaN and infinity, which JSON does not have.

    Raises:
        RecursionError: It is nested too deeply.
        ValueError: It is not JSON.
    """
    return json.loads(text, parse_constant=lambda name: None)
