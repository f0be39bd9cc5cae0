"""Fingerprints of the parameters of tasks and flows: the same in every attempt, for values of any class."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import pickle
import sys
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from ags_flows.models import Value
from ags_flows.ownership import fingerprint

DEEPEST = 50


@runtime_checkable
class HasPlace(Protocol):
    """A value of this package that stands for a place in the run and not for its id, such as a session."""

    @property
    def place_key(self) -> str:
        """Return a text that is the same in every attempt."""
        ...


def of_parameters(parameters: Mapping[str, Any] | None) -> str:
    """Return the fingerprint of the parameters of a task or a flow, 16 hexadecimal digits.

    Different values never have an equal one; a class counts by its qualified name. Equal values have an equal one in
    every attempt, if they have a form that does not change: a value that cannot be read has another one each time.
    """
    return fingerprint(_Reader().read(parameters or {}, 0))


class _Reader:
    """Turns values into JSON-like ones: a number, a text, or the name of a class with a fingerprint of the content."""

    def __init__(self) -> None:
        # Each value once, also if many others refer to it. The values are kept, so that their ids stay theirs.
        self._read: dict[int, tuple[Any, list[str]]] = {}

    def read(self, value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) not in self._read:
            name = type(value).__qualname__
            content = self._pickled(value) if depth > DEEPEST else self._content(value, depth + 1)
            self._read[id(value)] = value, [name, fingerprint(content)]
        return self._read[id(value)][1]

    def _content(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return value.name
        if isinstance(value, HasPlace) and not isinstance(value, type):
            return value.place_key
        if isinstance(value, BaseModel):
            measured = value.MEASURED if isinstance(value, Value) else ()
            fields = {field: getattr(value, field) for field in type(value).model_fields if field not in measured}
            more = {**(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
            return [self.read(fields, depth), self.read(more, depth)]
        if isinstance(value, functools.partial):
            return self.read([value.func, value.args, value.keywords], depth)
        if isinstance(value, MethodType):
            return [value.__func__.__qualname__, self.read(value.__self__, depth)]
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)) and "<" not in value.__qualname__:
            return [value.__module__, value.__qualname__]
        parts = self._parts(value, depth)
        if not parts:
            return self._pickled(value)
        added = _added(value)
        return [*parts, self.read(added, depth)] if added else parts

    def _parts(self, value: Any, depth: int) -> list[Any]:
        """Return what is in a value of a well-known kind, nothing for any other."""
        parts: list[Any] = []
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            parts.append(self.read(fields, depth))
        text = _text(value)
        if text is not None:
            parts.append(text)
        elif isinstance(value, Mapping):
            items = [[fingerprint(self.read(key, depth)), self.read(item, depth)] for key, item in value.items()]
            # The order of an ordered one counts, as it does for its equality.
            parts.append(items if isinstance(value, OrderedDict) else sorted(items, key=lambda item: str(item[0])))
            if isinstance(value, defaultdict):
                parts.append(self.read(value.default_factory, depth))
        elif isinstance(value, Set):
            parts.append(sorted(fingerprint(self.read(item, depth)) for item in value))
        elif isinstance(value, Sequence):
            parts.append([self.read(item, depth) for item in value])
        return parts

    def _pickled(self, value: Any) -> Any:
        """Hash the pickled value, such as a data frame, without keeping the bytes."""
        name, hasher = type(value).__qualname__, _Hasher()
        try:
            _Pickler(hasher, protocol=4).dump(value)
        except Exception:  # noqa: BLE001 - any class may refuse to be pickled, with any error
            return [name, uuid.uuid4().hex]
        return [name, hasher.digest()]


def _text(value: Any) -> str | None:
    """Return a value of a class with a well-known text as that, None for any other."""
    for scalar in (str, int, float):
        if isinstance(value, scalar):
            return scalar.__repr__(value)
    if isinstance(value, memoryview):
        value = value.tobytes()
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (SecretStr, SecretBytes)):
        return hashlib.sha256(str(value.get_secret_value()).encode()).hexdigest()
    if isinstance(value, (PurePath, UUID, Decimal, date, time, timedelta, complex, range)):
        return f"{value}{' again' * getattr(value, 'fold', 0)}"
    return None


def _added(value: Any) -> dict[str, Any]:
    """Return the attributes that a class of the caller adds to a text, a number, a container or a data class."""
    fields = {one.name for one in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    found: dict[str, Any] = {}
    for cls in type(value).__mro__:
        if cls.__module__.partition(".")[0] in sys.stdlib_module_names:
            continue
        slots = cls.__dict__.get("__slots__", ())
        found |= {
            name: getattr(value, name)
            for name in ([slots] if isinstance(slots, str) else slots)
            if hasattr(value, name)
        }
        found |= getattr(value, "__dict__", {})
    return {name: item for name, item in found.items() if name not in fields and not name.startswith("__")}


class _Pickler(pickle.Pickler):
    """Writes sets in an order that is the same in every process, which the hashes of texts are not."""

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, (set, frozenset)):
            return None
        return [type(obj).__qualname__, sorted(fingerprint(_Reader().read(item, 0)) for item in obj)]


class _Hasher:
    """A file that keeps only the hash of what is written to it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()
