"""Checks for arguments and fields, one for each kind of value. They run before any request."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ags_flows.errors import ConfigurationError

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""AGS has had several forms of ids, all of which fit into a host's name."""
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")

MOST_SECONDS = 9_999_999
"""Seconds of the longest time limit: envd takes ten digits of milliseconds."""

MOST_COUNT = (1 << 63) - 1
LONGEST_NAME = 1024
"""Characters of the longest name: names are parts of URLs."""

LONGEST_PATH = 4000
"""Bytes of the longest path: Linux has 4,096 with the home, and with the name of a temporary file."""

LONGEST_PART = 255
"""Bytes of the longest name in a path."""

LONGEST_VALUE = 100_000
"""Longest value of a variable in bytes. Linux limits one argument or environment variable to 128 KiB."""

MOST_VALUES = 1_000_000
"""Most bytes of all values together. Linux limits arguments and environment of a program to a quarter of its stack
limit, usually 2 MiB."""

_PATH = f"Give a text without a zero byte, of 1 to {LONGEST_PATH:,} bytes, with at most {LONGEST_PART} in each name"

SET_BY_BASH = frozenset(
    "UID EUID PPID SHELLOPTS BASHOPTS BASH_VERSINFO BASH_ARGC BASH_ARGV BASH_LINENO BASH_SOURCE PIPESTATUS _".split()
)
"""Variables that bash sets and that cannot be given to a command."""


def check_seconds(value: float | None, field: str = "timeout", *, positive: bool = False) -> float | None:
    """Check a number of seconds and return it. None is valid.

    Args:
        value: A finite number, or None.
        field: Name of the argument, for the error message.
        positive: Whether 0 is invalid.

    Raises:
        ConfigurationError: `value` is not a finite number, or is too small.

    Example:
        ```python
        assert check_seconds(1.5) == 1.5
        ```
    """
    if value is None:
        return None
    rule = "> 0" if positive else ">= 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == math.inf:
        raise ConfigurationError(f"{field} must be a finite number of seconds {rule}, got {shown_value(value)}.")
    if value > MOST_SECONDS:
        raise ConfigurationError(f"{field} must be at most {MOST_SECONDS} seconds.", hint="None means no limit.")
    if value < 0 or (positive and value == 0):
        raise ConfigurationError(f"{field} must be {rule} seconds, got {shown_value(value)}.")
    return value


def check_count(value: int | None, field: str = "limit", *, least: int = 0, most: int = MOST_COUNT) -> int | None:
    """Check an integer and return it. None is valid.

    Args:
        value: An integer, or None.
        field: Name of the argument, for the error message.
        least: The smallest valid number.
        most: The largest valid number.

    Raises:
        ConfigurationError: `value` is not an integer, is too small, or is too large.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{field} must be an integer >= {least}, got {shown_value(value)}.")
    if value > most:
        raise ConfigurationError(f"{field} must be at most {most}.")
    return value


def check_name(value: str | None, field: str) -> str | None:
    """Return a text that is not empty, such as the name of an image; None as it is.

    Raises:
        ConfigurationError: `value` is not a text, is empty, is too long, is not valid UTF-8, or has a zero byte.
    """
    if value is None:
        return None
    is_name = isinstance(value, str) and value.strip() and "\0" not in value and is_text(value)
    if not is_name or len(value) > LONGEST_NAME:
        raise ConfigurationError(
            f"{field} must be a text that is not empty and has no zero byte, got {shown_value(value)}.",
            hint=f"It has at most {LONGEST_NAME:,} characters.",
        )
    return value


def _matching(name: str, pattern: re.Pattern[str], what: str, hint: str) -> Callable[..., str]:
    """Return the rule of an argument, by default of this name, that is a text with a pattern."""

    def check(value: Any, field: str = name) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise ConfigurationError(f"{field} must be {what}, got {shown_value(value)}.", hint=hint)

    return check


check_instance_id = _matching(
    "instance", _ID, "the id of an instance", "Ids are letters, digits and '-', as AGS gives them."
)
check_context_id = _matching(
    "context", _ID, "a CodeContext or its id", "Ids are letters, digits and '-', as `create_code_context` returns them."
)
check_tool = _matching(
    "tool",
    TOOL_NAME,
    "the id or the name of a tool",
    "Names have 1 to 50 letters, digits, '_' or '-'; ids begin with 'sdt-'.",
)


def check_path(value: str, field: str = "path") -> str:
    """Return a path in a sandbox: absolute, or relative to the user's home. It may have bytes that are not UTF-8.

    Raises:
        ConfigurationError: `value` is not a text, is empty, is too long, or has a zero byte.
    """
    if _is_path(value):
        return value
    raise ConfigurationError(
        f"{field} must be a path in the sandbox, got {shown_value(value)}.",
        hint=f"{_PATH}: an absolute path, or one relative to the home.",
    )


def check_text_path(value: str, field: str = "path") -> str:
    """Return a path in a sandbox that is valid UTF-8: requests for single files and listings carry it as text.

    Raises:
        ConfigurationError: `value` is not a path, or is not valid UTF-8.
    """
    if is_text(check_path(value, field)):
        return value
    raise ConfigurationError(
        f"{field} must be valid UTF-8, got {shown_value(value)}.",
        hint="Transfer the directory that the file is in, or use a command.",
    )


def check_local(value: str | os.PathLike[str], field: str = "local") -> str | os.PathLike[str]:
    """Return a path on this machine.

    Raises:
        ConfigurationError: `value` is not a path, is empty, is too long, or has a zero byte.
    """
    if isinstance(value, (str, os.PathLike)) and _is_path(os.fspath(value)):
        return value
    raise ConfigurationError(
        f"{field} must be a path on this machine, got {shown_value(value)}.", hint=f"{_PATH}, or a pathlib.Path."
    )


def check_user(value: str | None, field: str = "user") -> str | None:
    """Return the name of a user in a sandbox, None as it is.

    Raises:
        ConfigurationError: `value` is not a valid user name.
    """
    if value is None or (isinstance(value, str) and _USER.fullmatch(value)):
        return value
    raise ConfigurationError(
        f"{field} must be the name of a user, got {shown_value(value)}.",
        hint=f"Leave {field} out for the default user, or give 'root'.",
    )


def check_flag(value: bool, field: str) -> bool:
    """Return True or False.

    Raises:
        ConfigurationError: `value` is something else.
    """
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{field} must be True or False, got {shown_value(value)}.")


def check_content(value: str | bytes, field: str = "content") -> str | bytes:
    """Return text that UTF-8 can hold, or bytes.

    Raises:
        ConfigurationError: `value` is neither, or has half a pair of surrogates.
    """
    if isinstance(value, bytes) or (isinstance(value, str) and is_text(value)):
        return value
    if isinstance(value, str):
        raise ConfigurationError(f"{field} has characters that UTF-8 does not have.", hint="Give bytes.")
    raise ConfigurationError(f"{field} must be a text or bytes, got {type(value).__name__}.")


def check_command(value: str | Sequence[str], field: str = "command") -> str | Sequence[str]:
    """Return a command: a text for a shell, or a program and its arguments.

    Raises:
        ConfigurationError: `value` is neither, is empty, or has what no program can be given.
    """
    parts = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
    if isinstance(value, (bytes, bytearray)) or not all(isinstance(part, str) for part in parts):
        raise ConfigurationError(f"{field} must be a text, or a list of texts, got {shown_value(value)}.")
    if not "".join(parts).strip():
        raise ConfigurationError(f"{field} is empty (got {shown_value(value)}).")
    if any("\0" in part for part in parts):
        raise ConfigurationError(f"{field} has a zero byte, which no program can be given.")
    if not all(map(is_text, parts)):
        raise ConfigurationError(f"{field} is not valid UTF-8.", hint="Write such names as $'\\xe9' in Bash.")
    return value


def check_texts(values: Mapping[str, str], field: str) -> Mapping[str, str]:
    """Return a mapping of names that are not empty to texts.

    Raises:
        ConfigurationError: `values` is something else; the message has the name.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{field} must be a mapping of names to texts, got {shown_value(values)}.")
    for name, value in values.items():
        if not isinstance(name, str) or not name or not isinstance(value, str) or not is_text(name + value):
            raise ConfigurationError(
                f"{field}: {shown_value(name)} must be a name with a text, got {shown_value(value)}."
            )
    return values


def check_secrets(values: Mapping[str, str], field: str = "secrets") -> Mapping[str, str]:
    """Return names of variables and of Secret blocks.

    Raises:
        ConfigurationError: `values` is something else; the message has the variable.
    """
    for name, block in check_texts(values, field).items():
        _variable(name, field)
        check_name(block, f"{field}: the block of {name}")
    return values


def choice(*allowed: str) -> Callable[[Any, str], Any]:
    """Return the rule of an argument that is one of some texts."""
    names = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"

    def check(value: Any, field: str) -> Any:
        if not isinstance(value, str) or value not in allowed:
            raise ConfigurationError(f"{field} must be {names}, got {shown_value(value)}.")
        return value

    return check


def check_text(value: object, field: str) -> str:
    """Return text, such as code, as it is; it may be empty.

    Raises:
        ConfigurationError: `value` is not a text, or is not valid UTF-8.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{field} must be a text, got {shown_value(value)}.")
    if not is_text(value):
        raise ConfigurationError(f"{field} is not valid UTF-8: it has half a pair of surrogates.")
    return value


def check_environment(values: Mapping[str, Any] | None, field: str = "env") -> dict[str, str]:
    """Return environment variables as strings. Numbers are converted; booleans become `true` and `false`.

    Args:
        values: Variable name to string, number or boolean. None is equal to an empty mapping.
        field: Name of the argument, for the error message.

    Raises:
        ConfigurationError: A name or a value is invalid. The message has the name of the variable.

    Example:
        ```python
        assert check_environment({"PORT": 8000, "DEBUG": True}) == {"PORT": "8000", "DEBUG": "true"}
        ```
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{field} must be a mapping of names to values, got {shown_value(values)}.")
    texts = {_variable(name, field): _text_of(name, value, field) for name, value in values.items()}
    if (total := sum(check_size(name, text, field) for name, text in texts.items())) > MOST_VALUES:
        raise ConfigurationError(f"{field}: the variables have {total:,} bytes together, more than {MOST_VALUES:,}.")
    return texts


def check_size(name: str, value: str, field: str = "env") -> int:
    """Return the bytes of a variable's value.

    Raises:
        ConfigurationError: It is longer than Linux allows, as it is or as the shell quotes it.
    """
    plain, quoted = len(value.encode()), len(shlex.quote(value).encode())
    if max(plain, quoted) > LONGEST_VALUE:
        size = f"{plain:,} bytes" if plain > LONGEST_VALUE else f"{quoted:,} bytes as the shell quotes it"
        raise ConfigurationError(
            f"{field}: {shown_value(name)[1:-1]} has {size}, more than {LONGEST_VALUE:,}.",
            hint="Upload it as a file, or pass it as stdin.",
        )
    return plain


def _variable(name: object, field: str) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name or not is_text(name):
        raise ConfigurationError(
            f"{field}: {shown_value(name)} is not a valid variable name.",
            hint="A name is a non-empty string without '=' and null characters.",
        )
    if name in SET_BY_BASH or name.startswith("AGS_FLOWS_"):
        owner = "bash" if name in SET_BY_BASH else "this package"
        raise ConfigurationError(f"{field}: the variable {name!r} is set by {owner}.", hint="Choose another name.")
    return name


def _text_of(name: str, value: object, field: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) <= MOST_COUNT or isinstance(value, float) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{field}: {name} must be a string, a finite number or a boolean, got {type(value).__name__}.",
            hint="Convert it, for example with json.dumps.",
        )
    if "\0" in value or not is_text(value):
        raise ConfigurationError(f"{field}: {name} has a zero byte or half a pair of surrogates.")
    return str(value)


def is_text(text: str) -> bool:
    """Return True if UTF-8 can hold a text: it has no lone surrogates, as names that are not UTF-8 have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_path(value: object) -> bool:
    """Return True if a text stands for bytes: characters, and surrogate escapes of bytes that are not UTF-8."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        path = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(path) <= LONGEST_PATH and max(map(len, path.split(b"/"))) <= LONGEST_PART


def shown_value(value: object) -> str:
    """Return a value for a message, on one line and not long."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - integers of thousands of digits, and classes of the caller
        return f"a value of type {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 200 else f"{text[:200]}..."
