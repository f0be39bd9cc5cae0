"""What is masked of a secret, and its texts in base64 and hex."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

SHORTEST = 4
"""Characters of the shortest value that is masked: shorter ones occur by chance in ordinary output."""

ORDINARY = frozenset({"true", "false", "null", "none"})
"""Words that are never masked, although a Secret block can hold them."""

DEEPEST = 4
"""Levels of JSON texts in JSON texts that are searched for values."""


def values(secrets: Iterable[str]) -> set[str]:
    """Return the values that are masked: secrets, their lines and, for a JSON text, the strings in it.

    Args:
        secrets: The secrets.
    """
    found = {value for secret in secrets for value in _values(secret, DEEPEST)}
    return {value for value in found if len(value) >= SHORTEST and value.lower() not in ORDINARY}


def encodings(value: str) -> Iterator[str]:
    """Yield the base64 and hex texts of a value, also where it is a part of a longer text in base64."""
    for data in _written(value):
        yield from _both_alphabets(base64.b64encode(data).decode())
        yield from _base64_to_the_end(data)
        yield data.hex()
        yield data.hex().upper()


def wrapped_base64(value: str) -> Iterator[str]:
    """Yield the base64 texts of a value as a part of a longer text."""
    return (text for piece in _pieces(value) for data in _written(piece) for text in _base64_to_the_end(data))


def wrapped_hex(value: str) -> Iterator[str]:
    """Yield the hex digits of a value without separators, in lower case, in both orders of the bytes of a word."""
    return (digits for piece in _pieces(value) for data in _written(piece) for digits in _hex(data))


def _pieces(value: str) -> list[str]:
    """Return a value without long runs of spaces, whose encodings are in ordinary data too."""
    return [piece for piece in re.split(r"\s{4,}", value) if len(piece) >= SHORTEST]


def _written(value: str) -> set[bytes]:
    """Return the bytes of a value as it is, in JSON and in a URL."""
    data = value.encode("utf-8", "surrogatepass")
    texts = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(data), quote(data, safe="")}
    return {data, *(text.encode("utf-8", "surrogatepass") for text in texts)}


def _values(secret: str, depth: int) -> Iterator[str]:
    """Yield the value, its lines, and the strings of a JSON text with theirs."""
    for value in {secret, *secret.splitlines(), *re.split(r"[\r\n]", secret)}:
        yield value.strip()
    if depth and secret.lstrip()[:1] in ("{", "[", '"'):
        try:
            parsed = json.loads(secret)
        except (ValueError, RecursionError):
            return
        for text in _strings(parsed):
            yield from _values(text, depth - 1)


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _base64_to_the_end(data: bytes) -> Iterator[str]:
    """Yield the characters that depend on the data alone, for each number of bytes before it.

    The same where the data is the end of the longer text, and in the alphabet of URLs.
    """
    for before in range(3):
        text = base64.b64encode(b"\0" * before + data).decode()
        first = (0, 2, 3)[before]
        for end in ((before + len(data)) * 8 // 6, len(text.rstrip("=")), len(text)):
            yield from _both_alphabets(text[first:end])


def _hex(data: bytes) -> Iterator[str]:
    yield data.hex()
    # As `od -x` and `hexdump` print it, where the data begins at the first or at the second byte of a word.
    for words in (data, data[1:]):
        yield b"".join(words[at : at + 2][::-1] for at in range(0, len(words) - 1, 2)).hex()


def _both_alphabets(text: str) -> tuple[str, str]:
    return text, text.replace("+", "-").replace("/", "_")
