"""Patterns of what a transfer leaves out, in the style of `.gitignore`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pathspec import GitIgnoreSpec

from ags_flows.errors import ConfigurationError
from ags_flows.transfer.paths import is_own

Exclude = str | Sequence[str]
"""Patterns, or the text of a `.gitignore` file."""


class Exclusion:
    """What a transfer leaves out: what the patterns match, and this package's own files.

    Args:
        exclude: Patterns as in a `.gitignore` file, relative to the directory that is transferred.

    Raises:
        ConfigurationError: A pattern is not valid.
    """

    def __init__(self, exclude: Exclude = ()) -> None:
        patterns = exclude.splitlines() if isinstance(exclude, str) else list(exclude)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise ConfigurationError(f"exclude must be patterns as text, got {pattern!r}.")
        try:
            self._spec = GitIgnoreSpec.from_lines(patterns)
        except ValueError as error:
            raise ConfigurationError(f"exclude={exclude!r} has a pattern that is not valid: {error}") from error
        self.has_patterns = any(pattern.strip() for pattern in patterns)

    def covers(self, name: str, is_directory: bool) -> bool:
        """Whether an entry is left out. For a directory, all entries in it are left out too, as by Git."""
        return is_own(name) or (self.has_patterns and self._spec.match_file(f"{name}/" if is_directory else name))

    def remaining(self, entries: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Give the names that are not left out, by themselves or with a directory above them.

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
