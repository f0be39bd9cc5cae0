"""What a call leaves: the report of the script in the sandbox, and the result or the error that it stands for."""

from __future__ import annotations

import json
import platform
import typing
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ags_flows.blocks import AGSConfig
from ags_flows.errors import ConfigurationError, FunctionError, OutputTooLargeError, UnsupportedError
from ags_flows.functions.files import Destination, fetch_files
from ags_flows.functions.source import Source
from ags_flows.functions.values import KIND, LISTED, SandboxFile, decode
from ags_flows.models import ExecResult, Instance
from ags_flows.run.logs import OutputLog
from ags_flows.run.redaction import Redactor

MOST = 64 << 20
"""Bytes of the arguments, and of the result, as JSON."""

SHOWN_OUTPUT = 2_000


class Report:
    """Takes the lines of a call's output: the report is kept, the others go to the log.

    Args:
        mark: How the line of the report begins.
        log: Gets the others.
    """

    def __init__(self, mark: str, log: OutputLog) -> None:
        self._mark = mark
        self._log = log
        self._text = ""
        self._is_empty_line_held = False

    def __call__(self, stream: str, line: str) -> None:
        """Take a line."""
        if stream == "stdout":
            # The report is preceded by a line end, which is not the function's.
            if line.startswith(self._mark):
                self._text, self._is_empty_line_held = line[len(self._mark) :], False
                return
            if self._is_empty_line_held:
                self._log("stdout", "")
            self._is_empty_line_held = not line
            if not line:
                return
        self._log(stream, line)

    def read(self, read: Callable[[str], bytes]) -> dict[str, Any] | None:
        """Return the report, None where the process ended without one.

        Args:
            read: Reads a file of the sandbox.
        """
        try:
            found = json.loads(self._text) if self._text else None
            if found is not None and found["kind"] == "file":
                found = json.loads(read(found["path"]))
        except (ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None


def value_of(source: Source, report: dict[str, Any] | None, result: ExecResult) -> Any:
    """Return the JSON form of the result, or raise what a report stands for."""
    name, kind = source.name, report["kind"] if report else None
    if report is None:
        lines = [line for line in (result.stderr or result.stdout).strip().splitlines() if line]
        shown = "\n".join(lines)[-SHOWN_OUTPUT:]
        message = f"the process ended with exit code {result.exit_code} before the function returned"
        raise FunctionError(
            f"{name}: {message}" + (f":\n{shown}" if shown else "."),
            function=name,
            error_type="ProcessEnded",
            error_message=message,
            traceback=shown,
            hint="It was killed: it may need more memory." if result.exit_code == 137 else None,
        )
    if kind == "value":
        return report["value"]
    if kind == "error":
        raise FunctionError(
            f"{name} raised {report['type']}: {report['message']}\n{report['traceback']}",
            function=name,
            error_type=report["type"],
            error_message=report["message"],
            traceback=report["traceback"],
        )
    if kind == "no python":
        raise UnsupportedError(
            f"{name}: the sandbox's image has no Python.", hint="Choose an image with Python 3.8 or later."
        )
    if kind == "version":
        raise UnsupportedError(
            f"{name}: the sandbox has Python {report['version']}.", hint="Choose an image with Python 3.8 or later."
        )
    if kind == "syntax":
        raise UnsupportedError(
            f"{name}: the sandbox's Python {report['version']} does not know the syntax of line {report['line']} of "
            f"{source.file} ({report['message']}: {(report['text'] or '').strip()}); this process has Python "
            f"{platform.python_version()}.",
            hint="Choose an image with this Python, or write the line for the older one.",
        )
    if kind == "large":
        raise OutputTooLargeError(
            f"{name}: the result is {report['size']:,} bytes as JSON, more than {MOST:,}.",
            hint="Write it to a file and return SandboxFile(path).",
        )
    raise FunctionError(
        f"{name}: the result cannot be returned: {report['message']}.",
        function=name,
        error_type="NotJSON",
        error_message=report["message"],
        hint="Return JSON, dataclasses, datetimes, bytes, or SandboxFile for files.",
    )


def masked(encoded: Any, redactor: Redactor) -> Any:
    """Return the JSON form of a result with every secret in its texts masked. Bytes and paths of files stay."""
    if isinstance(encoded, str):
        return redactor.text(encoded)
    if isinstance(encoded, list):
        return [masked(one, redactor) for one in encoded]
    if not isinstance(encoded, dict):
        return encoded
    kind = encoded.get(KIND)
    if kind is None:
        return {redactor.text(name): masked(one, redactor) for name, one in encoded.items()}
    value = encoded["value"]
    if kind in ("dict", "record"):
        return {KIND: kind, "value": {redactor.text(name): masked(one, redactor) for name, one in value.items()}}
    return {KIND: kind, "value": masked(value, redactor)} if kind in LISTED or kind == "PurePath" else encoded


def fetched(
    function: Callable[..., Any], destination: Destination, value: Any, instance: Instance, config: AGSConfig
) -> Any:
    """Return the result as the function's annotation has it, its files downloaded.

    Raises:
        FunctionError: It does not fit the annotation, or a file does not exist or has no valid path.
        ConfigurationError: Nothing can be made of the annotation.
    """
    try:
        found = decode(value)
    except Exception as error:  # noqa: BLE001 - what comes out of a sandbox is not trusted
        raise _bad_result(function.__name__, f"it cannot be read: {error!r}", "NotJSON") from None
    files: dict[SandboxFile, SandboxFile] = {}
    _each_file(found, lambda file: files.setdefault(file, file))
    here = fetch_files(files, destination, instance, config) if files else {}
    return made(function, _each_file(found, here.__getitem__))


def made(function: Callable[..., Any], found: Any) -> Any:
    """Return what pydantic makes of a result for the annotation of its function.

    Raises:
        FunctionError: It does not fit.
        ConfigurationError: Nothing can be made of the annotation.
    """
    adapter = adapter_of(function)
    if adapter is None:
        return found
    try:
        # A model arrives with the names of its fields, and a function may return their aliases.
        value = adapter.validate_python(found, by_alias=True, by_name=True)
        # Of `Iterable` pydantic makes an iterator.
        return list(value) if isinstance(value, Iterator) else value
    except ValidationError as error:
        wrong = [f"{_path(one['loc'])}: {one['msg']}" for one in error.errors(include_url=False, include_input=False)]
        raise _bad_result(
            function.__name__, f"it does not match its annotation: {'; '.join(wrong)}", "ValidationError"
        ) from None


def adapter_of(function: Callable[..., Any]) -> TypeAdapter[Any] | None:
    """Return what makes the annotated type of a result; None if there is no annotation, or not in this process.

    Raises:
        ConfigurationError: Nothing can be made of the annotation.
    """
    try:
        # Of the result alone: those of parameters may name what exists for type checkers alone, as this one may.
        alone = SimpleNamespace(__annotations__={"return": function.__annotations__["return"]})
        hint: Any = typing.get_type_hints(alone, function.__globals__, include_extras=True)["return"]
    except Exception:  # noqa: BLE001 - the name does not exist here
        return None
    try:
        adapter = TypeAdapter(hint)
        # Classes may name what does not exist.
        adapter.rebuild()
        return adapter
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise ConfigurationError(
            f"{function.__name__}: nothing can be made of the annotation of the result: {error}",
            hint="Annotate it with JSON types, dataclasses, pydantic models, or leave the annotation out.",
        ) from None


def _bad_result(called: str, message: str, error_type: str) -> FunctionError:
    return FunctionError(
        f"{called}: the result: {message}.", function=called, error_type=error_type, error_message=message
    )


def _path(location: tuple[int | str, ...]) -> str:
    return "result" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in location)


def _each_file(value: Any, change: Callable[[SandboxFile], SandboxFile]) -> Any:
    """Return a value with each file in it changed."""
    if isinstance(value, SandboxFile):
        return change(value)
    if isinstance(value, dict):
        return type(value)({name: _each_file(one, change) for name, one in dict.items(value)})
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)([_each_file(one, change) for one in value])
    return value
