"""The items of a batch: a list, a file of JSON Lines, or the files of a directory. All are read before any is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.ownership import fingerprint

KEYS = ("key", "id", "instance_id")
"""Fields of an item that say what it is known by, the first that it has."""


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        key: What it is known by: the same in every attempt.
        index: Its place, from 0.
        value: JSON.
        path: The local file, for items that are files.
    """

    key: str
    index: int
    value: Any
    path: Path | None = None


@dataclass(frozen=True)
class Items:
    """All items of a batch, each once, and how many were there more than once."""

    all: tuple[Item, ...]
    duplicates: int = 0


def read_items(source: Sequence[Any] | str | Path) -> Items:
    """Read and check all items.

    Args:
        source: JSON values; or the path of a JSON Lines file; or of a directory, each of whose files (those in
            directories below too, hidden ones not) is an item.

    Raises:
        ConfigurationError: There are none; a line is no JSON; a file cannot be read; two different items have the
            same key. Nothing was started.
    """
    if isinstance(source, (str, Path)):
        if not str(source).strip():
            # An empty path would be the current directory.
            raise ConfigurationError("items: it is empty.", hint="Give a list, a JSON Lines file or a directory.")
        path = Path(source)
        if not path.exists():
            raise ConfigurationError(
                f"items={str(source)!r}: there is no such file or directory.",
                hint="Give a list, a JSON Lines file or a directory.",
            )
        found = _of_directory(path) if path.is_dir() else _of_lines(path)
    else:
        found = [(f"item {place}", value, None) for place, value in enumerate(source)]
    if not found:
        raise ConfigurationError(f"items={_short(source)}: there are no items.", hint="Nothing was started.")
    return _distinct(found)


def _of_directory(directory: Path) -> list[tuple[str, Any, Path | None]]:
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigurationError(
                f"items: {path} cannot be read: {error.strerror}.", hint="Nothing was started; mend or move the file."
            ) from error
    return [(str(path), str(path.relative_to(directory)), path) for path in files]


def _of_lines(path: Path) -> list[tuple[str, Any, Path | None]]:
    found: list[tuple[str, Any, Path | None]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found.append((f"{path}, line {number}", json.loads(line), None))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"items: {path}, line {number} is not JSON: {error.msg}.",
            hint="Nothing was started; write one JSON value a line.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"items: {path} cannot be read: {error}.", hint="Nothing was started.") from error
    return found


def _distinct(found: Iterable[tuple[str, Any, Path | None]]) -> Items:
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    duplicates = 0
    for place, value, path in found:
        _check(place, value)
        key = _key(place, value)
        if key not in items:
            items[key] = Item(key, len(items), value, path)
            places[key] = place
        elif items[key].value == value:
            duplicates += 1
        else:
            raise ConfigurationError(
                f"items: {places[key]} and {place} differ, and are both known as {key!r}.",
                hint="Nothing was started; give each item a key of its own.",
            )
    return Items(tuple(items.values()), duplicates)


def _key(place: str, value: Any) -> str:
    if isinstance(value, dict):
        for field in KEYS:
            if isinstance(value.get(field), (str, int)) and str(value[field]):
                return str(value[field])
    elif isinstance(value, (str, int)) and 0 < len(str(value)) <= 200:
        return str(value)
    return fingerprint(value)


def _check(place: str, value: Any) -> None:
    try:
        # Half of a surrogate pair, as in the name of a file that is not UTF-8, can be kept nowhere.
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        place = place.encode(errors="backslashreplace").decode()
        raise ConfigurationError(f"items: {place} is not JSON: {error}.", hint="Nothing was started.") from error


def _short(source: object) -> str:
    text = repr(str(source) if isinstance(source, Path) else source)
    return text if len(text) <= 100 else f"{text[:97]}..."
