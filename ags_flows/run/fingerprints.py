"""Fingerprints of the parameters of tasks and flows: the same in every attempt, for values of any class."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import pickle
import uuid
from collections import OrderedDict
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
    """Turns values into JSON-like ones."""

    def read(self, value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if depth > DEEPEST:
            return self._pickled(value)
        simple = _simple(value)
        if simple is not None:
            return simple
        name, inner = type(value).__qualname__, depth + 1
        if isinstance(value, HasPlace) and not isinstance(value, type):
            return [name, value.place_key]
        if isinstance(value, BaseModel):
            measured = value.MEASURED if isinstance(value, Value) else ()
            fields = {field: getattr(value, field) for field in type(value).model_fields if field not in measured}
            more = {**(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
            return [name, self.read(fields, inner), self.read(more, inner)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return [name, self.read({one.name: getattr(value, one.name) for one in dataclasses.fields(value)}, inner)]
        content = self._content(value, inner)
        if content is not None:
            # A class of the caller may add attributes.
            added = getattr(value, "__dict__", None)
            return [name, content, self.read(added, inner)] if added else [name, content]
        if isinstance(value, functools.partial):
            return [name, self.read([value.func, value.args, value.keywords], inner)]
        if isinstance(value, MethodType):
            return [value.__func__.__qualname__, self.read(value.__self__, inner)]
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)) and "<" not in value.__qualname__:
            return [value.__module__, value.__qualname__]
        return self._pickled(value)

    def _content(self, value: Any, depth: int) -> Any:
        """Return what is in a text, a number or a container, None for any other value."""
        for scalar in (str, int, float):
            if isinstance(value, scalar):
                return scalar.__repr__(value)
        if isinstance(value, Mapping):
            items = [[fingerprint(self.read(key, depth)), self.read(item, depth)] for key, item in value.items()]
            # The order of an ordered one counts, as it does for its equality.
            return items if isinstance(value, OrderedDict) else sorted(items, key=lambda item: str(item[0]))
        if isinstance(value, Set):
            return sorted(fingerprint(self.read(item, depth)) for item in value)
        if isinstance(value, Sequence):
            return [self.read(item, depth) for item in value]
        return None

    def _pickled(self, value: Any) -> Any:
        """Hash the pickled value, such as a data frame, without keeping the bytes."""
        name, hasher = type(value).__qualname__, _Hasher()
        try:
            _Pickler(hasher, protocol=4).dump(value)
        except Exception:  # noqa: BLE001 - any class may refuse to be pickled, with any error
            return [name, uuid.uuid4().hex]
        return [name, hasher.digest()]


def _simple(value: Any) -> list[str] | None:
    """Return a value of a well-known class as text, None for any other."""
    name = type(value).__qualname__
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [name, hashlib.sha256(value).hexdigest()]
    if isinstance(value, enum.Enum):
        return [name, value.name]
    if isinstance(value, (SecretStr, SecretBytes)):
        return [name, hashlib.sha256(str(value.get_secret_value()).encode()).hexdigest()]
    if isinstance(value, (PurePath, UUID, Decimal, date, time, timedelta, complex, range)):
        return [name, str(value)]
    return None


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
