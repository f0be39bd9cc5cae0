"""The items of a batch: a list, a file of JSON Lines, or the files of a directory. All are read before any is done."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.ownership import fingerprint

KEYS = ("key", "id", "instance_id")
"""Fields of an item that may be its key: the first one that it has."""

LONGEST_KEY = 200

_OTHER_ENCODINGS = {
    # The marks of UTF-16 are the beginning of these.
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        key: What the item is known by: the same in every attempt.
        index: Its position, from 0.
        value: JSON.
        path: The local file, for items that are files.
        where: Where it was read from, for messages: `items.jsonl, line 3`.
        known_version: The version, if another process has computed it.
    """

    key: str
    index: int
    value: Any
    path: Path | None = None
    where: str = field(default="", compare=False)
    known_version: str = field(default="", compare=False)

    @cached_property
    def version(self) -> str:
        """Fingerprint of the value; for a file also of its size and content. Never raises an error: see `Work.do`."""
        if self.known_version:
            return self.known_version
        if self.path is None:
            return fingerprint(self.value)
        return fingerprint([self.value, *_measured(self.path)])


@dataclass(frozen=True)
class Items:
    """The items of a batch.

    Attributes:
        all: All items, each once.
        duplicates: How many were there more than once.
        source: The path that they were read from; empty for a list.
        is_slice: Whether they are the items of one shard of a batch.
    """

    all: tuple[Item, ...]
    duplicates: int = 0
    source: str = ""
    is_slice: bool = False


def read_items(source: Sequence[Any] | str | Path) -> Items:
    """Read and check all items.

    Args:
        source: JSON values; or the path of a JSON Lines file (UTF-8, with or without a byte order mark); or of a
            directory, each of whose files is an item. Files in directories below count too, hidden ones do not.

    Raises:
        ConfigurationError: There are no items; a line or a value is not JSON; a file cannot be read; two different
            items have the same key. Nothing was started.
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
    elif isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise ConfigurationError(
            f"items={_short(source)}: this is neither a list nor a path.",
            hint="Give a list, a JSON Lines file or a directory.",
        )
    else:
        found = [(f"item {position}", value, None) for position, value in enumerate(source)]
    if not found:
        raise ConfigurationError(f"items={_short(source)}: there are no items.", hint="Nothing was started.")
    return replace(_distinct(found), source=str(source) if isinstance(source, (str, Path)) else "")


def _measured(path: Path) -> tuple[int, str]:
    """Return the size and the hash of a file; of one that cannot be read any more, a size that no file has."""
    hashed, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                hashed.update(piece)
                size += len(piece)
    except OSError:
        return -1, ""
    return size, hashed.hexdigest()


def _of_directory(directory: Path) -> list[tuple[str, Any, Path | None]]:
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    for path in files:
        try:
            str(path).encode()
            path.open("rb").close()
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"items: {str(path).encode(errors='backslashreplace').decode()}: the name of the file is not UTF-8.",
                hint="Nothing was started; rename or move the file.",
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"items: {path} cannot be read: {error.strerror}.", hint="Nothing was started; fix or move the file."
            ) from error
    return [(str(path), str(path.relative_to(directory)), path) for path in files]


def _of_lines(path: Path) -> list[tuple[str, Any, Path | None]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"items: {path} cannot be read: {error}.", hint="Nothing was started.") from error
    encoding = next((name for name, marks in _OTHER_ENCODINGS.items() if content.startswith(marks)), None)
    if encoding is not None:
        raise ConfigurationError(
            f"items: {path} cannot be read: it is {encoding}.", hint="Nothing was started; write the file as UTF-8."
        )
    found: list[tuple[str, Any, Path | None]] = []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        position = f"{path}, line {number}"
        try:
            text = line.decode("utf-8").strip()
            if text:
                found.append((position, json.loads(text, object_pairs_hook=_distinct_fields), None))
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"items: {position} cannot be read: it is not UTF-8 ({error.reason} at byte {error.start}).",
                hint="Nothing was started; write the file as UTF-8.",
            ) from error
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                f"items: {position} is not JSON: {error.msg}.", hint="Nothing was started; write one JSON value a line."
            ) from error
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"items: {position}: {error}.", hint="Nothing was started.") from error
    return found


def _distinct_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the field {twice!r} twice")
    return fields


def _distinct(found: Iterable[tuple[str, Any, Path | None]]) -> Items:
    items: dict[str, Item] = {}
    duplicates = 0
    for position, value, path in found:
        _check(position, value)
        key = _key(value)
        if key not in items:
            items[key] = Item(key, len(items), value, path, position)
        elif _is_same(items[key].value, value):
            duplicates += 1
        else:
            raise ConfigurationError(
                f"items: {items[key].where} and {position} differ, but both have the key {key!r}.",
                hint="Nothing was started; give each item a different key.",
            )
    return Items(tuple(items.values()), duplicates)


def _is_same(one: Any, other: Any) -> bool:
    # As JSON: for Python, 1 and True are equal, and a tuple is not a list.
    return fingerprint(one) == fingerprint(other)


def _key(value: Any) -> str:
    if isinstance(value, dict):
        for name in KEYS:
            found = value.get(name)
            if isinstance(found, (str, int)) and not isinstance(found, bool) and str(found):
                return str(found)
    elif isinstance(value, (str, int)) and 0 < len(str(value)) <= LONGEST_KEY:
        return json.dumps(value) if isinstance(value, bool) else str(value)
    return fingerprint(value)


def _check(position: str, value: Any) -> None:
    """Refuse what is not JSON: NaN and infinity, too, and half of a surrogate pair, as in a file name not in UTF-8."""
    try:
        _try_json(value)
    except _NOT_JSON as error:
        position = position.encode(errors="backslashreplace").decode()
        raise ConfigurationError(
            f"items: {position} is not JSON{_wrong_place(value)}: {error}.", hint="Nothing was started."
        ) from error


_NOT_JSON = (TypeError, ValueError, RecursionError)


def _try_json(value: Any) -> None:
    # Sorted, as for a fingerprint: names of fields that cannot be compared are not all texts.
    json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()


def _wrong_place(value: Any) -> str:
    """Return key and name of the first field of an item that is not JSON; without what cannot be shown."""
    for name, content in value.items() if isinstance(value, dict) else ():
        try:
            _try_json({name: content})
        except _NOT_JSON:
            with suppress(*_NOT_JSON):
                return f" (key {_key(value)!r}, field {name!r})"
            return f" (field {name!r})"
    return ""


def _short(source: object) -> str:
    text = repr(str(source) if isinstance(source, Path) else source)
    return text if len(text) <= 100 else f"{text[:97]}..."
