"""The source of a function: what is sent to a sandbox, and what is refused before anything starts."""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType, FunctionType
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.functions.guest import compiled, parsed

PROVIDED = frozenset({"SandboxFile", "__name__"})
"""Names that a function finds in the sandbox without an import."""

_READS = ("LOAD_GLOBAL", "LOAD_NAME")
_WRITES = ("STORE_GLOBAL",)
_FRAMES_OF_ANNOTATIONS = ("__annotate__",)


@dataclass(frozen=True)
class Source:
    """The source of one function.

    Attributes:
        name: The function's name.
        file: The file that it is in, for tracebacks.
        line: The line of its `def`.
        text: From its `def` on, without decorators.
        signature: Of the function.
        postponed: Whether the file has `from __future__ import annotations`.
        is_recursive: Whether the function uses its own name.
    """

    name: str
    file: str
    line: int
    text: str
    signature: inspect.Signature
    postponed: bool = False
    is_recursive: bool = False


def source_of(function: Callable[..., Any]) -> Source:
    """Return the source of a function that needs nothing around it.

    Raises:
        ConfigurationError: It cannot be sent: it is a lambda, a method, a generator or an async function, another
            decorator has wrapped it, its source is not available, or it uses names of the code around it.
    """
    name = getattr(function, "__name__", type(function).__name__)
    _check_kind(function, name)
    assert isinstance(function, FunctionType)
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or function.__code__.co_filename
        node = parsed("".join(lines), first, file).body[0]
    except (OSError, TypeError, SyntaxError) as error:
        raise _refused(name, f"its source cannot be read: {error}", "Define it in a file.") from error
    if not isinstance(node, ast.FunctionDef):
        raise _refused(name, "its source is not a def statement", "Write it as def.")
    # The line of `def` is below the decorators.
    text = lines[node.lineno - first : (node.end_lineno or node.lineno) - first + 1]
    postponed = bool(function.__code__.co_flags & __future__.annotations.compiler_flag)
    source = Source(name, file, node.lineno, "".join(text), inspect.signature(function), postponed)
    try:
        names = _names_around(source)
    except SyntaxError as error:
        raise _refused(
            name,
            f"its source is not complete without the code around it: {error.msg} (line {error.lineno})",
            "Pass values as arguments, and return what changes.",
        ) from error
    _check_names(function, source, names)
    return replace(source, is_recursive=name in names)


def _check_kind(function: Callable[..., Any], name: str) -> None:
    if isinstance(function, (staticmethod, classmethod)) or inspect.ismethod(function):
        raise _refused(name, "it is a method", "Write a function, and pass what it needs as arguments.")
    if not isinstance(function, FunctionType):
        raise _refused(name, f"it is a {type(function).__name__} and not a function", "Write a function with def.")
    if name == "<lambda>":
        raise _refused(name, "it is a lambda", "Write a function with def.")
    if hasattr(function, "__wrapped__"):
        raise _refused(
            name,
            "a decorator below in_sandbox has wrapped it, and decorators are not sent",
            "Put in_sandbox directly above def: decorators above it act on this machine.",
        )
    parts = function.__qualname__.split(".")
    if len(parts) > 1 and parts[-2] != "<locals>":
        raise _refused(name, f"it is a method of {parts[-2]}", "Write a function, and pass what it needs as arguments.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(name, "it is async", "Write def, and call asyncio.run inside.")
    if inspect.isgeneratorfunction(function):
        raise _refused(name, "it is a generator", "Return a list.")


def _check_names(function: FunctionType, source: Source, names: set[str]) -> None:
    """Refuse names that the sandbox does not have."""
    missing = sorted(names - PROVIDED - {source.name} - set(dir(builtins)))
    if not missing:
        return
    described = []
    for name in missing:
        value = function.__globals__.get(name)
        if name in function.__code__.co_freevars:
            described.append(f"{name} (of the function around it)")
        elif inspect.ismodule(value):
            described.append(f"{name} (a module)")
        elif name in function.__globals__:
            described.append(f"{name} (a global)")
        else:
            described.append(f"{name} (not defined)")
    raise _refused(
        source.name,
        f"it uses names that the sandbox does not have: {', '.join(described)}",
        "Import modules inside of the function, pass values as arguments, send own code with include=[...].",
    )


def _names_around(source: Source) -> set[str]:
    """Return the names that the function takes from the code around it, as the sandbox will compile it."""
    module = compiled(source.text, source.line, source.file, source.postponed)
    function = next(one for one in module.co_consts if isinstance(one, CodeType) and one.co_name == source.name)
    reads: set[str] = set()
    writes: set[str] = set()
    for code in _codes(function):
        local = set()
        for instruction in dis.get_instructions(code):
            if instruction.opname == "STORE_NAME":
                local.add(instruction.argval)
            elif instruction.opname in _WRITES:
                writes.add(instruction.argval)
            elif instruction.opname in _READS and instruction.argval not in local:
                reads.add(instruction.argval)
    # Bodies of classes read what Python puts there.
    return reads - writes - {"__qualname__", "__module__", "__annotations__", "__conditional_annotations__"}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name not in _FRAMES_OF_ANNOTATIONS:
            yield from _codes(constant)


def _refused(name: str, why: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"{name} cannot run in a sandbox: {why}.", hint=hint)
