"""What runs in the sandbox around a function: standard library alone, for every Python from 3.8 on.

The text of this file is sent with each call, and is executed there behind that of `values`, in one module with it.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ags_flows.functions.values import NotJSONError, SandboxFile, decode, encode

# Modules are imported where they are needed: to import all of them takes longer than most calls.

SMALL = 24000
"""Characters of a report that is written to the output. A longer one is written to a file."""

OLDEST = (3, 8)
_ONLY_TREE = 0x400
"""The flag of `compile` that the module `ast` uses."""


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
