"""Where the results of a batch are kept: a directory, or any file system that Prefect writes results to."""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect.results import get_default_result_storage

from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import AGSFlowsError, ConfigurationError, UnreachableError
from ags_flows.run.now import now

RESULTS = "results.jsonl"

PATIENCE = 30.0
"""Seconds after the first failure from which on a batch does not repeat its reads and writes any more."""

BACKOFF = Backoff(attempts=None, patience=PATIENCE, first_pause=0.25, longest_pause=5.0)
"""How a read or a write is repeated that fails while a batch is at work."""

WRONG = (
    *(FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
    *(ImportError, NotImplementedError, TypeError, ValueError),
)
"""Errors of a location that no repetition makes right. Others may be an outage of the store."""

R = TypeVar("R")


class ResultsError(UnreachableError):
    """The results location could not be read or written, although it was tried again. A retry may succeed."""


class ResultsGoneError(ResultsError):
    """The results location was deleted while a batch was at work on it."""

    retryable = False


class Storage(Protocol):
    """Named texts that can grow."""

    def read(self, name: str) -> bytes:
        """Return a text, empty if there is none."""
        ...

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a text; it survives the death of this process once this returns."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Replace a text, whole or not at all."""
        ...

    def where(self, name: str) -> str:
        """Return the path or URL of a text, for messages."""
        ...

    def under(self, prefix: str) -> Storage:
        """Return the part of this storage whose names begin with a prefix that ends with `/`."""
        ...


class DirectoryStorage:
    """Files in a local directory."""

    def __init__(self, directory: Path) -> None:
        """Take a directory, which is created with the first text."""
        self._directory = directory.expanduser().absolute()

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file."""
        try:
            file = (self._directory / name).open("ab")
        except FileNotFoundError:
            self._directory.mkdir(parents=True, exist_ok=True)
            file = (self._directory / name).open("ab")
        with file:
            file.write(content)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file by renaming."""
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f".{name}.{uuid.uuid4().hex}"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._directory / name)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def where(self, name: str) -> str:
        """Return the path."""
        return str(self._directory / name)

    def under(self, prefix: str) -> DirectoryStorage:
        """Return a directory below."""
        return DirectoryStorage(self._directory / prefix)


class PrefectStorage:
    """Objects of a Prefect file system, which cannot grow: an append writes the whole object again."""

    def __init__(self, filesystem: WritableFileSystem, prefix: str = "") -> None:
        """Take a file system, and what all names begin with."""
        self._filesystem = filesystem
        self._prefix = prefix
        self._texts: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        try:
            return bytes(now(self._filesystem.read_path(self._prefix + name)))
        except Exception as error:
            if _is_absent(error):
                return b""
            raise

    def append(self, name: str, content: bytes) -> None:
        """Write an object again with more at its end."""
        with self._lock:
            if name not in self._texts:
                self._texts[name] = self.read(name)
            longer = self._texts[name] + content
            self.write(name, longer)
            self._texts[name] = longer

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        now(self._filesystem.write_path(self._prefix + name, content))

    def where(self, name: str) -> str:
        """Return the object's name within its file system."""
        base = getattr(self._filesystem, "basepath", None)
        return f"{str(base).rstrip('/')}/{self._prefix}{name}" if base else self._prefix + name

    def under(self, prefix: str) -> PrefectStorage:
        """Return the objects below."""
        return PrefectStorage(self._filesystem, self._prefix + prefix)


def _is_absent(error: Exception) -> bool:
    """Return True if an error means that there is no such object, which differs from store to store.

    All others are errors: what is done would be forgotten, and written over.
    """
    if isinstance(error, FileNotFoundError):
        return True
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return (
        # Prefect's local file system, botocore, and the clients of Google and Azure.
        (isinstance(error, ValueError) and "does not exist" in str(error))
        or code in ("NoSuchKey", "404")
        or type(error).__name__ in ("NotFound", "ResourceNotFoundError")
    )


def repeated(storage: Storage, action: Callable[[], R], *, first: bool = False) -> R:
    """Read or write, again and again if it fails: each store raises other errors.

    Args:
        storage: The results location.
        action: One attempt.
        first: Whether this run has not used the location before: one that is wrong is reported immediately.

    Raises:
        ResultsError: It failed to the end.
    """

    def act() -> R:
        try:
            return action()
        except AGSFlowsError:
            raise
        except Exception as error:
            raise _failure(storage, error) from error

    return persistently(act, BACKOFF, repeat=lambda error: error.retryable and not (first and _is_wrong(error)))


class SharedRetries:
    """Repeats the reads and writes of one batch that fail. Thread-safe.

    All threads share one deadline: as soon as a text has failed for `PATIENCE` seconds, every call fails, also those
    that are waiting.

    Args:
        storage: The results location.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._failing: dict[str, float] = {}
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._given_up = threading.Event()

    def check(self) -> None:
        """Raise an error if the location was given up.

        Raises:
            ResultsError: It was.
        """
        if self._error is not None:
            raise _failure(self._storage, self._error) from self._error

    def repeat(self, name: str, action: Callable[[], R]) -> R:
        """Read or write a text, again and again if it fails.

        Args:
            name: The text.
            action: One attempt.

        Raises:
            ResultsError: The location was given up.
        """

        def act() -> R:
            self.check()
            try:
                result = action()
            except AGSFlowsError:
                raise
            except Exception as error:
                self._note(name, error)
                raise _failure(self._storage, error) from error
            with self._lock:
                self._failing.pop(name, None)
            return result

        def is_repeated(error: AGSFlowsError) -> bool:
            return isinstance(error, ResultsError) and error.retryable and not self._given_up.is_set()

        return persistently(act, BACKOFF, repeat=is_repeated, sleep=self._pause)

    def _pause(self, seconds: float) -> None:
        self._given_up.wait(seconds)

    def _note(self, name: str, error: Exception) -> None:
        now = time.monotonic()
        with self._lock:
            since = self._failing.setdefault(name, now)
            if now - since >= PATIENCE and self._error is None:
                self._error = error
                self._given_up.set()


def _is_wrong(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, WRONG) or isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.ENAMETOOLONG)


def _failure(storage: Storage, error: Exception) -> ResultsError:
    return ResultsError(
        f"results: {storage.where('')} cannot be used: {type(error).__name__}: {error}".rstrip(".") + ".",
        hint="What was recorded before is kept. Run the batch again with the same location.",
    )


@contextmanager
def reported(storage: Storage, what: str) -> Iterator[None]:
    """Report a location for results that is wrong, before this run starts anything.

    Raises:
        ConfigurationError: It is.
    """
    try:
        yield
    except ResultsError as error:
        if not _is_wrong(error):
            raise
        cause = error.__cause__
        raise ConfigurationError(
            f"results: {storage.where(RESULTS)} cannot be {what}: {type(cause).__name__}: {cause}".rstrip(".") + ".",
            hint="Give a directory, or the URL of a store that fsspec knows. This run has started nothing.",
        ) from error


def storage_at(location: str) -> Storage:
    """Return the storage at a local path, or at the URL of any store that fsspec knows (`s3://bucket/runs`)."""
    hint = "Give a directory, or a URL such as s3://bucket/path. This run has started nothing."
    if not location.strip():
        raise ConfigurationError("results: the location is blank.", hint=hint)
    if location.startswith("file:"):
        return DirectoryStorage(_directory_at(location))
    if "://" not in location:
        return DirectoryStorage(Path(location))
    if location.startswith(("http:", "https:")):
        raise ConfigurationError(f"results: {location} cannot be written to.", hint=hint)
    try:
        return PrefectStorage(RemoteFileSystem(basepath=location))
    except ValueError as error:
        raise ConfigurationError(
            f"results: {location} names no place in its store.",
            hint=hint,
        ) from error


def _directory_at(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"results: {url} is not the URL of a directory of this machine.",
            hint="Write file:///absolute/path, or the path alone. This run has started nothing.",
        )
    return Path(unquote(parts.path))


def result_storage(filesystem: WritableFileSystem | None, prefix: str) -> Storage:
    """Return the part of a result storage of Prefect, by default of the configured one, that begins with a prefix."""
    filesystem = filesystem or now(get_default_result_storage())
    if isinstance(filesystem, LocalFileSystem) and filesystem.basepath:
        return DirectoryStorage(Path(filesystem.basepath) / prefix)
    return PrefectStorage(filesystem, prefix)
