"""Values as JSON, for the client and for the sandbox: what JSON has no form for is an object with the key `$ags`.

The text of this file is sent with each call, see `guest`: standard library alone, for every Python from 3.8 on.
"""

from __future__ import annotations

import binascii
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KIND = "$ags"
DEEPEST = 100


class NotJSONError(TypeError):
    """A value that cannot cross.

    Attributes:
        path: Where it is, such as `days[3].when`.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path + ": " + reason)
        self.path = path
        self.reason = reason


class SandboxFile:
    """A file or a directory, as an argument or a result of a function that runs in a sandbox.

    As an argument it is uploaded before the call. In the function its `path` is where it is in the sandbox, and `open`
    takes it as it is. A function returns one for what it wrote: it is downloaded, and the caller gets one whose `path`
    is on the caller's machine. The content is never held in memory.

    Args:
        path: Path of the file on the machine where this code runs.
        to: Of a result: where it is downloaded to, relative to the directory `files` of `in_sandbox`. Default: its
            name.

    Example:
        ```python
        @in_sandbox(image="python:3.11")
        def shout(text: SandboxFile, name: str) -> SandboxFile:
            with open(text) as source, open("out.txt", "w") as target:
                target.write(source.read().upper())
            return SandboxFile("out.txt", to=name)
        ```
    """

    def __init__(self, path: str | os.PathLike[str], to: str | os.PathLike[str] | None = None) -> None:
        self.path = _path("path", path)
        self.to = None if to is None else _path("to", to)

    def __fspath__(self) -> str:
        """Return the path."""
        return self.path

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"SandboxFile({self.path!r})" if self.to is None else f"SandboxFile({self.path!r}, to={self.to!r})"

    def __eq__(self, other: object) -> bool:
        """Return True if both name the same file."""
        return isinstance(other, SandboxFile) and (self.path, self.to) == (other.path, other.to)

    def __hash__(self) -> int:
        """Return the hash of the path."""
        return hash((self.path, self.to))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let fields and parameters have this type."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)


def _path(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, got {value!r}")
    return str(os.fspath(value))


class Record(dict):  # type: ignore[type-arg]
    """Fields of a dataclass or of a model whose class the sandbox does not have: `order["price"]`, `order.price`.

    A field that is named as a method of mappings, such as `items`, is read and changed as `order["items"]`.
    """

    def __getattr__(self, name: str) -> Any:
        """Return a field."""
        if name in self:
            return self[name]
        raise AttributeError(f"the record has no field {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Change a field."""
        if hasattr(dict, name):
            raise AttributeError(f"{name!r} is a method of mappings: change the field as record[{name!r}]")
        self[name] = value


def encode(value: Any, path: str, depth: int = 0) -> Any:
    """Return a value as JSON.

    Raises:
        NotJSONError: It is not JSON; the error has its path.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if depth > DEEPEST:
        raise NotJSONError(path, f"it is nested deeper than {DEEPEST} levels, or contains itself")
    if isinstance(value, dict):
        return _encode_dict(value, path, depth)
    for kind in LISTED:
        if isinstance(value, LISTED[kind]):
            items = [encode(one, path + "[" + str(at) + "]", depth + 1) for at, one in enumerate(value)]
            return items if kind == "list" else {KIND: kind, "value": _ordered(items, kind, path)}
    if isinstance(value, (bytes, bytearray)):
        return {KIND: "bytes", "value": binascii.b2a_base64(value, newline=False).decode()}
    if isinstance(value, SandboxFile):
        return {KIND: "file", "value": [os.path.abspath(value.path), value.to]}
    for kind, (module, write) in WRITTEN.items():
        # A value of a class that was not imported does not exist.
        if module in sys.modules and isinstance(value, getattr(sys.modules[module], kind)):
            return {KIND: kind, "value": write(value, path)}
    return _data(value, path, depth)


def _text(value: Any, path: str) -> str:
    """Return a text that UTF-8 has: what is stored, logged and shown is UTF-8."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotJSONError(path, "the text has half a pair of surrogates, which is not valid Unicode") from None
    return text


def _ordered(items: list[Any], kind: str, path: str) -> list[Any]:
    """Return the elements of a set in an order that is the same in every process; those of a tuple as they are."""
    if kind == "tuple":
        return items
    try:
        LISTED[kind](decode(items))
    except TypeError:
        raise NotJSONError(
            path, "elements of this set arrive as records, which a set cannot have: use a list"
        ) from None
    return sorted(items, key=json.dumps)


def _encode_dict(value: Any, path: str, depth: int) -> Any:
    encoded = {}
    for key, one in dict.items(value):
        if not isinstance(key, str):
            raise NotJSONError(path, f"the key {key!r} is of type {type(key).__name__}, and keys must be texts")
        shown = path + "." + key if key.isidentifier() else path + "[" + repr(key) + "]"
        encoded[_text(key, shown)] = encode(one, shown, depth + 1)
    if isinstance(value, Record):
        return {KIND: "record", "value": encoded}
    return {KIND: "dict", "value": encoded} if KIND in encoded else encoded


def _write_time(value: Any, path: str) -> list[Any]:
    """Return a time or a moment as text, with what the text does not have: its fold, and the name of its zone."""
    if value != value:
        raise NotJSONError(path, "a missing time (" + type(value).__name__ + ") is not JSON: use None")
    kind = sys.modules["datetime"].datetime if hasattr(value, "year") else sys.modules["datetime"].time
    # A subclass may write more than `fromisoformat` reads.
    return [kind.isoformat(value), value.fold, getattr(value.tzinfo, "key", None)]


def _read_time(kind: Any, written: list[Any]) -> Any:
    found = kind.fromisoformat(written[0]).replace(fold=written[1])
    try:
        import zoneinfo

        return found.replace(tzinfo=zoneinfo.ZoneInfo(written[2])) if written[2] else found
    except (ImportError, KeyError, ValueError, OSError):
        # Python 3.8, or an image without time zones: the offset is right, for this moment.
        return found


LISTED = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
WRITTEN = {
    # Each datetime is a date.
    "datetime": ("datetime", _write_time),
    "date": ("datetime", lambda value, path: [value.year, value.month, value.day]),
    "time": ("datetime", _write_time),
    "timedelta": ("datetime", lambda value, path: [value.days, value.seconds, value.microseconds]),
    "Decimal": ("decimal", lambda value, path: str(value)),
    "UUID": ("uuid", lambda value, path: str(value)),
    "PurePath": ("pathlib", lambda value, path: _text(str(value), path)),
}
"""How values of the standard library are written: the name of the class, its module, and a function."""


def _data(value: Any, path: str, depth: int) -> Any:
    """Return the data of an object whose class the other side does not have."""
    kind = type(value)
    fields = None
    if "enum" in sys.modules and isinstance(value, sys.modules["enum"].Enum):
        return encode(value.value, path, depth + 1)
    if getattr(kind, "__pydantic_root_model__", False):
        return encode(value.root, path, depth + 1)
    if hasattr(kind, "__dataclass_fields__"):
        fields = {one.name: getattr(value, one.name) for one in sys.modules["dataclasses"].fields(value)}
    elif hasattr(kind, "model_dump") and hasattr(kind, "model_fields"):
        fields = {name: getattr(value, name) for name in kind.model_fields}
        fields.update(getattr(value, "__pydantic_extra__", None) or {})
    if fields is not None:
        encoded = {name: encode(one, path + "." + name, depth + 1) for name, one in fields.items()}
        return {KIND: "record", "value": encoded}
    name = kind.__qualname__ if kind.__module__ == "builtins" else kind.__module__ + "." + kind.__qualname__
    if hasattr(value, "get_secret_value"):
        raise NotJSONError(path, "it is a secret (" + name + "); name its Secret block with secrets=")
    raise NotJSONError(path, "a value of type " + name + " is not JSON")


def decode(data: Any) -> Any:
    """Return the value of its JSON form."""
    if isinstance(data, list):
        return [decode(one) for one in data]
    if not isinstance(data, dict):
        return data
    if KIND not in data:
        return {key: decode(one) for key, one in data.items()}
    kind, value = data[KIND], data["value"]
    if kind in ("dict", "record"):
        fields = {key: decode(one) for key, one in value.items()}
        return fields if kind == "dict" else Record(fields)
    if kind in LISTED:
        return LISTED[kind](decode(value))
    if kind == "bytes":
        return binascii.a2b_base64(value)
    if kind == "file":
        return SandboxFile(os.path.expanduser(value[0]), value[1])
    import importlib

    module = importlib.import_module(WRITTEN[kind][0])
    if kind in ("datetime", "time"):
        return _read_time(getattr(module, kind), value)
    found = getattr(module, "Path" if kind == "PurePath" else kind)
    return found(*value) if isinstance(value, list) else found(value)
