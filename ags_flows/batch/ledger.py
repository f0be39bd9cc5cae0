"""The record of a batch: what it is, which items have begun, and which are done.

The first record describes the batch. The others are appended to parts of a fixed number of items, so that a store
whose objects cannot grow writes little again. A line that was cut by the death of its writer counts as never written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError

from ags_flows.batch.items import Item
from ags_flows.batch.storage import BACKOFF, FIRST_BACKOFF, RESULTS, Storage, repeated, reported
from ags_flows.errors import ConfigurationError
from ags_flows.models import ItemResult
from ags_flows.ownership import digest

BATCH = "batch.json"
PART = 100

SHOWN = 200
"""How many results of each status are kept in memory, for the report. All are in the storage."""


@dataclass(frozen=True)
class Identity:
    """What a batch is.

    Attributes:
        does: Fingerprint of the command or function and of the caller's `step=`: another one is another batch.
        work: Fingerprint of all that decides about an item's result but the item: if it changes, items are done again.
        text: The same as text, without secrets.
    """

    does: str
    work: str
    text: str

    def check(self, storage: Storage) -> str:
        """Refuse a location of another batch; return how the batch is described there, an empty text for a new one.

        Raises:
            ConfigurationError: The location has the results of another batch, or cannot be read.
        """
        with reported(storage, "read"):
            content = repeated(storage, lambda: storage.read(BATCH), FIRST_BACKOFF)
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            # The death of its writer has cut it.
            return ""
        text = str(found.get("batch", ""))
        if found.get("does", self.does) != self.does:
            raise self.conflict(storage, text)
        return text

    def record(self, storage: Storage) -> None:
        """Write what the batch is, before anything is started.

        Raises:
            ConfigurationError: The location cannot be written.
        """
        content = json.dumps({"batch": self.text, "does": self.does}, ensure_ascii=False).encode() + b"\n"
        with reported(storage, "written to"):
            repeated(storage, lambda: storage.write(BATCH, content), FIRST_BACKOFF)

    def conflict(self, storage: Storage, other: str) -> ConfigurationError:
        """Return the error for a location that belongs to another batch."""
        return ConfigurationError(
            f"results: {storage.where('')} belongs to another batch. There: {other}. Here: {self.text}.",
            hint="Give this batch another location for its results. Nothing was started.",
        )


@dataclass(frozen=True)
class Begun:
    """An attempt at an item that has no end yet.

    Attributes:
        instance_id: The sandbox.
        attempt: 1-based number, counted across all runs of the batch.
    """

    instance_id: str
    attempt: int


class Ledger:
    """The state of a batch in a storage. Thread-safe.

    Args:
        storage: The results location.
        items: The items.
        identity: What the batch is.
        check: Called before each record: raises an error if another run has taken the location over.

    Attributes:
        status: Key of an item that is done to `ok` or `failed`.
        begun: Key of an item to the attempt at it that has begun.
        attempts: Key of an item to the number of the latest attempt.
        resumed: Keys of the items that were done before.
    """

    def __init__(
        self,
        storage: Storage,
        items: Iterable[Item],
        identity: Identity,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._items = {item.key: item for item in items}
        self._identity = identity
        self._check = check
        self._lock = threading.Lock()
        self._torn: set[str] = set()
        self._shown: dict[str, dict[str, ItemResult]] = {"ok": {}, "failed": {}}
        self._elsewhere: dict[str, ItemResult] = {}
        self.status: dict[str, str] = {}
        self.begun: dict[str, Begun] = {}
        self.attempts: dict[str, int] = {}
        self._found = identity.check(storage) or identity.text
        with reported(storage, "read"):
            for part in self._parts():
                for result in self._read(part):
                    self._keep(result, part)
        self.resumed = frozenset(key for key, status in self.status.items() if status == "ok")

    def prepare(self) -> None:
        """Record what the batch is, and try the storage, before anything is started.

        Raises:
            ConfigurationError: The storage cannot be written.
        """
        self._identity.record(self._storage)
        with reported(self._storage, "written to"):
            part = next(iter(self._parts()))
            repeated(self._storage, lambda: self._storage.append(part, b""), FIRST_BACKOFF)

    def begin(self, begun: Iterable[tuple[Item, int]], instance_id: str) -> None:
        """Record that items are about to be worked on.

        Args:
            begun: The items with the numbers of their attempts.
            instance_id: The sandbox.
        """
        records = []
        for item, attempt in begun:
            self.attempts[item.key] = attempt
            records.append((item, {"begun": instance_id, "attempt": attempt}))
        self._add(records)

    def finish(self, results: Sequence[tuple[Item, ItemResult]]) -> None:
        """Record the results of items: final ones, or ones until a later attempt of the batch."""
        self._add(
            [(item, {"result": result.model_dump(mode="json", exclude_defaults=True)}) for item, result in results]
        )
        with self._lock:
            for item, result in results:
                self._keep(result, _part(item))

    def count(self, status: str) -> int:
        """Return how many items have a status, `ok` or `failed`."""
        with self._lock:
            return sum(found == status for found in self.status.values())

    def shown(self, status: str) -> list[ItemResult]:
        """Return the first results with a status, in the order of the items."""
        with self._lock:
            found = list(self._shown[status].values())
        return sorted(found, key=lambda result: result.index)

    def write_results(self) -> str:
        """Write all results in the order of the items, and return where they are."""
        lines = b"".join(result.model_dump_json().encode() + b"\n" for result in self.results())
        repeated(self._storage, lambda: self._storage.write(RESULTS, lines))
        return self._storage.where(RESULTS)

    def results(self) -> Iterator[ItemResult]:
        """Yield the latest result of each item, in the order of the items."""
        for part in self._parts():
            latest = {result.key: result for result in self._read(part)}
            members = [item for item in self._items.values() if _part(item) == part]
            for item in members:
                result = self._elsewhere.get(item.key) or latest.get(item.key)
                if result is not None and item.key in self.status:
                    yield result

    def _parts(self) -> list[str]:
        return list(dict.fromkeys(_part(item) for item in self._items.values()))

    def _keep(self, result: ItemResult, part: str) -> None:
        key, status = result.key, result.status
        for shown in self._shown.values():
            shown.pop(key, None)
        if len(self._shown[status]) < SHOWN:
            self._shown[status][key] = result
        self._elsewhere.pop(key, None)
        if part != _part(self._items[key]):
            # The list of items has changed since: the item belongs to another part now.
            self._elsewhere[key] = result
        self.status[key] = status
        self.begun.pop(key, None)

    def _add(self, records: Sequence[tuple[Item, dict[str, Any]]]) -> None:
        """Append records, at the latest after some attempts."""
        lines: dict[str, list[str]] = {}
        for item, record in records:
            line = json.dumps({"key": item.key, "does": self._does(item), **record}, ensure_ascii=False)
            lines.setdefault(_part(item), []).append(line)
        with self._lock:
            for part, found in lines.items():
                self._append(part, "\n".join(found).encode() + b"\n")

    def _append(self, part: str, content: bytes) -> None:
        def append() -> None:
            self._check()
            torn = part in self._torn
            # Until it has succeeded, a part of it may have been written.
            self._torn.add(part)
            self._storage.append(part, b"\n" + content if torn else content)
            self._torn.discard(part)

        repeated(self._storage, append, BACKOFF)

    def _does(self, item: Item) -> str:
        return digest(self._identity.work, item.version)

    def _read(self, part: str) -> Iterator[ItemResult]:
        """Read a part: keep which items have begun, and yield the results in it, the latest last."""
        content = repeated(self._storage, lambda: self._storage.read(part), FIRST_BACKOFF)
        if content and not content.endswith(b"\n"):
            self._torn.add(part)
        for line in content.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            item = self._items.get(str(record.get("key"))) if isinstance(record, dict) else None
            if item is None:
                key = record.get("key") if isinstance(record, dict) else record
                self._refuse(f"{self._found}, with the item {key!r}, which is not one of these items")
            result = self._take(part, item, record)
            if result is not None:
                yield result

    def _take(self, part: str, item: Item, record: dict[str, Any]) -> ItemResult | None:
        key, same = item.key, record.get("does") == self._does(item)
        if "begun" in record:
            attempt = int(record["attempt"])
            self.attempts[key] = max(attempt, self.attempts.get(key, 0))
            self.begun.pop(key, None)
            if same:
                self.begun[key] = Begun(str(record["begun"]), attempt)
            return None
        try:
            result = ItemResult.model_validate(record["result"])
        except (KeyError, ValidationError):
            self._refuse(f"{self._found}, recorded by another version of this package")
        self.begun.pop(key, None)
        # What was done for another value, or by other work, is done again.
        return result.model_copy(update={"index": item.index}) if same else None

    def _refuse(self, other: str) -> NoReturn:
        raise self._identity.conflict(self._storage, other)


def _part(item: Item) -> str:
    return f"ledger-{item.index // PART:05d}.jsonl"
