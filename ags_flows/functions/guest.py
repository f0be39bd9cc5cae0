"""What runs in the sandbox around a function: standard library alone, for every Python from 3.8 on.

The text of this file is sent with each call and executed there as a script; the client imports the same classes and
the same encoding of values. Values cross as JSON. What JSON has no form for is an object with the key `$ags`.
"""

from __future__ import annotations

import binascii
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Modules are imported where they are needed: to import all of them takes longer than most calls.

KIND = "$ags"
DEEPEST = 100
SMALL = 24000
"""Characters of a report that is written to the output. A longer one is written to a file."""

OLDEST = (3, 8)
_ONLY_TREE = 0x400
"""The flag of `compile` that the module `ast` uses."""


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
    if isinstance(value, (list, tuple)):
        items = [encode(one, path + "[" + str(at) + "]", depth + 1) for at, one in enumerate(value)]
        return items if isinstance(value, list) else {KIND: "tuple", "value": items}
    if isinstance(value, dict):
        return _encode_dict(value, path, depth)
    simple = _encode_simple(value)
    if simple is not None:
        return {KIND: simple[0], "value": simple[1]}
    return {KIND: "record", "value": _fields(value, path, depth)}


def _text(value: Any, path: str) -> str:
    """Return a text that UTF-8 has: what is stored, logged and shown is UTF-8."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotJSONError(path, "the text has half a pair of surrogates, which is not valid Unicode") from None
    return text


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


def _encode_simple(value: Any) -> tuple[str, Any] | None:
    times = sys.modules.get("datetime")
    if times is not None:
        for kind in ("datetime", "date", "time"):
            if isinstance(value, getattr(times, kind)):
                return kind, value.isoformat()
        if isinstance(value, times.timedelta):
            return "timedelta", [value.days, value.seconds, value.microseconds]
    if isinstance(value, (bytes, bytearray)):
        return "bytes", binascii.b2a_base64(value, newline=False).decode()
    if isinstance(value, SandboxFile):
        return "file", [os.path.abspath(value.path), value.to]
    return None


def _fields(value: Any, path: str, depth: int) -> Any:
    """Return the fields of a dataclass or of a pydantic model."""
    if not isinstance(value, type):
        if hasattr(value, "__dataclass_fields__"):
            names = list(value.__dataclass_fields__)
            return {name: encode(getattr(value, name), path + "." + name, depth + 1) for name in names}
        if hasattr(value, "model_dump") and hasattr(type(value), "model_fields"):
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            fields.update(getattr(value, "__pydantic_extra__", None) or {})
            return {name: encode(one, path + "." + name, depth + 1) for name, one in fields.items()}
    kind = type(value)
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
    if kind == "tuple":
        return tuple(decode(one) for one in value)
    if kind == "bytes":
        return binascii.a2b_base64(value)
    if kind == "file":
        return SandboxFile(os.path.expanduser(value[0]), value[1])
    import datetime

    if kind == "timedelta":
        return datetime.timedelta(*value)
    return getattr(datetime, kind).fromisoformat(value)


def parsed(source: str, line: int, file: str) -> Any:
    """Return the syntax tree of a module with one function, without its decorators, defaults and annotations.

    The caller has evaluated the defaults, which may name what the sandbox does not have.

    Args:
        source: The function's lines, with their indentation.
        line: Number of the first one.
        file: The name of the file.

    Raises:
        SyntaxError: This Python does not know the syntax.
    """
    indented = source[:1] in (" ", "\t")
    before = "\n" * (line - 2) + "if 1:\n" if indented else "\n" * (line - 1)
    tree: Any = compile(before + source, file, "exec", _ONLY_TREE, True)
    function = tree.body[0].body[0] if indented else tree.body[0]
    tree.body = [function]
    if type(function).__name__ != "FunctionDef":
        return tree
    function.decorator_list = []
    function.returns = None
    if hasattr(function, "type_params"):
        function.type_params = []
    signature = function.args
    rest = [one for one in (signature.vararg, signature.kwarg) if one is not None]
    for parameter in signature.posonlyargs + signature.args + signature.kwonlyargs + rest:
        parameter.annotation = None
    signature.defaults = []
    signature.kw_defaults = [None for _ in signature.kwonlyargs]
    return tree


def compiled(source: str, line: int, file: str, postponed: bool) -> Any:
    """Return the code that defines the function.

    Args:
        source: The function's lines, with their indentation.
        line: Number of the first one.
        file: The name of the file.
        postponed: Whether the file has `from __future__ import annotations`.

    Raises:
        SyntaxError: This Python does not know the syntax, or the function needs another one around it.
    """
    import __future__

    flags = __future__.annotations.compiler_flag if postponed else 0
    return compile(parsed(source, line, file), file, "exec", flags, True)


def _defined(code: Any, call: dict[str, Any]) -> Any:
    """Return the function, in a module that can be found by its name, as classes in the function need."""
    module = type(sys)("__ags_function__")
    sys.modules[module.__name__] = module
    scope = vars(module)
    scope["SandboxFile"] = SandboxFile
    exec(code, scope)
    function = scope[call["name"]]
    # A call has all arguments. A function that calls itself needs the defaults too.
    function.__defaults__ = tuple(decode(call["defaults"])) or None
    function.__kwdefaults__ = decode(call["kwdefaults"]) or None
    return function


def _perform(call: dict[str, Any]) -> dict[str, Any]:
    """Call the function and return its outcome."""
    try:
        code = compiled(call["source"], call["line"], call["file"], call["postponed"])
    except SyntaxError as error:
        version = ".".join(str(part) for part in sys.version_info[:3])
        return {"kind": "syntax", "version": version, "line": error.lineno, "message": error.msg, "text": error.text}
    sys.path[:0] = [os.path.expanduser(path) for path in call["paths"]]
    if "logging" in sys.modules:
        _configure(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _LoggingFinder())
    try:
        result = _defined(code, call)(*decode(call["args"]), **decode(call["kwargs"]))
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are the function's failures too
        return _failure(error, call)
    try:
        value = encode(result, "result")
        size = len(json.dumps(value))
    except (NotJSONError, ValueError, RecursionError) as error:
        return {"kind": "result", "message": str(error)}
    if size > call["limit"]:
        return {"kind": "large", "size": size}
    return {"kind": "value", "value": value}


class _LoggingFinder:
    """Configures `logging` when the function, or what it imports, imports it first."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find `logging`, and nothing else."""
        if name != "logging":
            return None
        from importlib.machinery import PathFinder

        sys.meta_path.remove(self)
        spec: Any = PathFinder.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_configure(module: Any) -> None:
            execute(module)
            _configure(module)

        spec.loader.exec_module = execute_and_configure
        return spec


def _configure(logging: Any) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def _failure(error: BaseException, call: dict[str, Any]) -> dict[str, Any]:
    import linecache
    import traceback

    # Lines of tracebacks are those of the caller's file, which is not here.
    lines = [""] * (call["line"] - 1) + call["source"].splitlines(True)
    linecache.cache[call["file"]] = (len(call["source"]), None, lines, call["file"])

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else kind.__module__ + "." + kind.__qualname__
    trace = error.__traceback__
    # The first frame is this file's.
    shown = traceback.format_exception(kind, error, trace.tb_next if trace else None)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the class of the error may be broken
        message = ""
    return {
        "kind": "error",
        "type": name,
        "message": _shown(message[:8000]),
        "traceback": _shown("".join(shown)[-20000:]),
    }


def _shown(text: str) -> str:
    """Return a text with escapes of what UTF-8 does not have."""
    return text.encode("utf-8", "backslashreplace").decode()


def main(text: str) -> int:
    """Execute a call, write its report, and return an exit code.

    Args:
        text: The call, or `-` where it is the standard input.
    """
    started = time.monotonic()
    # What the function does with the standard output does not reach this one.
    output = os.dup(1)
    call = json.loads(sys.stdin.read() if text == "-" else text)
    report = _perform(call)
    report["seconds"] = round(time.monotonic() - started, 4)
    text = json.dumps(report)
    if len(text) > SMALL:
        path = os.path.expanduser(call["result"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)
        text = json.dumps({"kind": "file", "path": path})
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - the function may have closed it
            continue
    rest = ("\n" + call["mark"] + text + "\n").encode()
    while rest:
        rest = rest[os.write(output, rest) :]
    return 0 if report["kind"] == "value" else 1
