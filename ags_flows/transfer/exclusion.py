"""What a transfer leaves out: patterns in the style of `.gitignore`, and links that lead outside."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pathspec import GitIgnoreSpec

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import choice, shown_value
from ags_flows.transfer.paths import is_own

Exclude = str | Sequence[str]
"""Patterns, or the text of a `.gitignore` file."""

Links = Literal["keep", "skip"]
"""Whether links that lead outside of the directory are kept as they are, or left out."""

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \t",
    "digit": "0-9",
    "lower": "a-z",
    "space": " \t\n\r\v\f",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
"""Characters of the classes of POSIX, in a C locale."""

check_links = choice("keep", "skip")


def check_exclude(exclude: Exclude, field: str = "exclude") -> Exclude:
    """Return patterns as they are.

    Raises:
        ConfigurationError: One of them is not a text, or not valid.
    """
    Exclusion(exclude, field)
    return exclude


class Exclusion:
    """What a transfer leaves out: what the patterns match, and this package's own files.

    Args:
        exclude: Patterns as in a `.gitignore` file, relative to the directory that is transferred.
        field: The name that errors give.

    Raises:
        ConfigurationError: A pattern is not valid.
    """

    def __init__(self, exclude: Exclude = (), field: str = "exclude") -> None:
        if isinstance(exclude, bytes) or not isinstance(exclude, (str, Sequence)):
            raise ConfigurationError(
                f"{field} must be patterns as text, or a list of them, got {shown_value(exclude)}."
            )
        patterns = exclude.splitlines() if isinstance(exclude, str) else list(exclude)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise ConfigurationError(f"{field} must be patterns as text, got {shown_value(pattern)}.")
        try:
            # For pathspec `a/**` also matches `a`, but for Git only what is in it.
            lines = [re.sub(r"/\*\*(/?)$", r"/**/*\1", _without_classes(line)) for line in patterns]
            with warnings.catch_warnings():
                # Of characters such as [ and && in classes, which may get another meaning in regular expressions.
                warnings.simplefilter("ignore", FutureWarning)
                known = GitIgnoreSpec.from_lines(lines).patterns
                # The last one decides.
                self._patterns = [
                    (_as_by_git(one.regex), bool(one.include)) for one in reversed(known) if one.regex is not None
                ]
        except ValueError as error:
            raise ConfigurationError(
                f"{field}={shown_value(exclude)} has a pattern that is not valid: {error}"
            ) from error
        self.has_patterns = bool(self._patterns)

    def covers(self, name: str, is_directory: bool) -> bool:
        """Return True if an entry is left out. For a directory, all entries in it are left out too, as by Git.

        The last pattern decides that matches the entry itself. Directories above it are checked on their own.
        """
        if is_own(name):
            return True
        path = f"{name}/" if is_directory else name
        return next((excluded for pattern, excluded in self._patterns if _matches(pattern, path)), False)

    def remaining(self, entries: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Yield the names that are not left out, alone or with a directory above them.

        Args:
            entries: Names and whether they are directories.
        """
        directories = {"": False}

        def left_out(directory: str) -> bool:
            if directory not in directories:
                above = directory.rpartition("/")[0]
                directories[directory] = left_out(above) or self.covers(directory, True)
            return directories[directory]

        for name, is_directory in entries:
            if is_directory:
                if not left_out(name):
                    yield name
            elif not left_out(name.rpartition("/")[0]) and not self.covers(name, False):
                yield name


def _without_classes(pattern: str) -> str:
    """Return a pattern with ranges in place of the classes of POSIX, such as `[:alpha:]`, which pathspec does not know.

    Raises:
        ValueError: There is no range for a class.
    """

    def range_of(found: re.Match[str]) -> str:
        if found[1] not in _CLASSES:
            raise ValueError(f"the class {found[0]} is not supported")
        return _CLASSES[found[1]]

    return re.sub(r"\[:([a-z]*):\](?=[^\]]*\])", range_of, pattern)


def _as_by_git(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Return a pattern as Git applies it: negated classes match no slash, and line feeds in names are characters."""
    text = re.sub(r"\[\^(?!/)", "[^/", pattern.pattern)
    return re.compile(re.sub(r"\$(\)?)$", r"\\Z\1", text), pattern.flags | re.DOTALL)


def _matches(pattern: re.Pattern[str], path: str) -> bool:
    """Return True if a pattern matches the path itself, not only a directory above it.

    The regular expressions of pathspec mark the slash after a directory as a named group.
    """
    return any(
        all(match.end(mark) in (-1, len(path)) for mark in match.groupdict()) for match in pattern.finditer(path)
    )
