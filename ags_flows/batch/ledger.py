"""The record of a batch: what it is, which items have begun, and which are done.

The first record describes the batch. The others are appended to parts of a fixed number of items, so that a store
whose objects cannot grow writes little again. They are numbered, since the part of an item changes when items are added
before it. A line that was cut by the death of its writer counts as never written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError

from ags_flows.batch.identity import BATCH, Identity
from ags_flows.batch.items import Item
from ags_flows.batch.records import parsed, part_name, record_of, records_of
from ags_flows.batch.storage import (
    RESULTS,
    ResultsGoneError,
    SharedRetries,
    Storage,
    repeated,
    reported,
)
from ags_flows.models import ItemResult
from ags_flows.ownership import digest

PART = 100

SHOWN = 200
"""How many results of each status are kept in memory, for the report. All are in the storage."""


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
        unlisted: Keys of recorded items that are not among the items.
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
        # Of the position, and not of the index: the items of a shard are some of a longer list.
        self._parts = {key: part_name(position // PART) for position, key in enumerate(self._items)}
        self._identity = identity
        self._check = check
        self._retries = SharedRetries(storage)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._torn: set[str] = set()
        self._shown: dict[str, dict[str, ItemResult]] = {"ok": {}, "failed": {}}
        self._elsewhere: dict[str, ItemResult] = {}
        self._next = 1
        self._latest: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._tried: dict[str, set[tuple[str, int]]] = {}
        self.status: dict[str, str] = {}
        self.begun: dict[str, Begun] = {}
        self.attempts: dict[str, int] = {}
        self.unlisted: set[str] = set()
        self._recorded = identity.check(storage)
        self._number = max(self._recorded.parts, -(-len(self._items) // PART))
        with reported(storage, "read"):
            for part in range(self._number):
                self._load(part_name(part))
        self.resumed = frozenset(key for key, status in self.status.items() if status == "ok")

    @property
    def knows_items(self) -> bool:
        """Whether one of the items is recorded."""
        return bool(self._latest)

    def refuse_other_items(self) -> None:
        """Refuse a location all of whose recorded items are others.

        Raises:
            ConfigurationError: It belongs to another batch.
        """
        if self.unlisted and not self.knows_items:
            self._refuse(f"with the item {min(self.unlisted)!r}, which is not one of these items")

    def prepare(self) -> None:
        """Record what the batch is, and try the storage, before anything is started.

        Raises:
            ConfigurationError: The storage cannot be written.
        """
        self._identity.record(self._storage, self._number)
        with reported(self._storage, "written to"):
            repeated(self._storage, lambda: self._storage.append(part_name(0), b""), first=True)

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
        numbers = self._add([(item, {"result": record_of(result)}) for item, result in results])
        with self._lock:
            for (item, result), number in zip(results, numbers, strict=True):
                self._ended[item.key] = number
                self.begun.pop(item.key, None)
                self._keep(result, self._parts[item.key])

    def ended_in(self, instance_id: str) -> int:
        """Return how many attempts of earlier runs have ended in a sandbox, at most: those that go on do not count."""
        with self._lock:
            at_work = sum(begun.instance_id == instance_id for begun in self.begun.values())
            return max(0, len(self._tried.get(instance_id, ())) - at_work)

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
        """Write all results in the order of the items, and return where they are.

        Raises:
            ResultsError: The location cannot be used, or records in it were deleted.
        """
        found = [result.model_dump_json().encode() + b"\n" for result in self.results()]
        if len(found) < len(self.status):
            raise ResultsGoneError(
                f"results: {len(self.status) - len(found)} of {len(self.status)} results that were recorded in "
                f"{self._storage.where('')} are not there any more: they were deleted while the batch was at work.",
                hint="Run the batch again: it does what is not recorded.",
            )
        self._retries.repeat(RESULTS, lambda: self._storage.write(RESULTS, b"".join(found)))
        # It may have been deleted while the batch was at work.
        self._retries.repeat(BATCH, lambda: self._identity.write(self._storage, self._number))
        return self._storage.where(RESULTS)

    def results(self) -> Iterator[ItemResult]:
        """Yield the latest result of each item, in the order of the items."""
        members: dict[str, list[Item]] = {}
        for item in self._items.values():
            members.setdefault(self._parts[item.key], []).append(item)
        for part, items in members.items():
            latest: dict[str, ItemResult] = {}
            for record in self._retries.repeat(part, lambda: list(records_of(self._storage, part))):  # noqa: B023
                own = self._items.get(str(record.get("key")))
                if own is not None and "result" in record and record.get("n") == self._ended.get(own.key):
                    latest[own.key] = self._result(own, record)
            for item in items:
                result = self._elsewhere.get(item.key) or latest.get(item.key)
                if result is not None and item.key in self.status:
                    yield result

    def _load(self, part: str) -> None:
        """Read a part of the records of earlier runs."""
        content = repeated(self._storage, lambda: self._storage.read(part), first=True)
        if content and not content.endswith(b"\n"):
            self._torn.add(part)
        for record in parsed(content):
            if "begun" in record:
                self._tried.setdefault(str(record["begun"]), set()).add((str(record.get("key")), record["attempt"]))
            item = self._items.get(str(record.get("key")))
            if item is None:
                self.unlisted.add(str(record.get("key")))
            else:
                self._take(part, item, record)

    def _take(self, part: str, item: Item, record: dict[str, Any]) -> None:
        """Take a record of an earlier run over. The latest ones decide, whichever part they are in."""
        key, same = item.key, record.get("does") == self._does(item)
        number = int(record.get("n", 0))
        self._next = max(self._next, number + 1)
        self._latest.setdefault(key, 0)
        if "begun" in record:
            attempt = int(record["attempt"])
            if number > self._latest[key]:
                self._latest[key] = number
                self.begun.pop(key, None)
                if same and number > self._ended.get(key, 0):
                    self.begun[key] = Begun(str(record["begun"]), attempt)
        else:
            result = self._result(item, record)
            attempt = result.attempts
            if number > self._ended.get(key, 0):
                self._ended[key] = number
                if number > self._latest[key]:
                    self.begun.pop(key, None)
                self._forget(key)
                if same:
                    # What was done for another value, or by other work, is done again.
                    self._keep(result, part)
        self.attempts[key] = max(attempt, self.attempts.get(key, 0))

    def _result(self, item: Item, record: dict[str, Any]) -> ItemResult:
        try:
            result = ItemResult.model_validate(record["result"])
        except (KeyError, ValidationError):
            self._refuse("recorded by another version of this package")
        return result.model_copy(update={"index": item.index})

    def _keep(self, result: ItemResult, part: str) -> None:
        key, status = result.key, result.status
        self._forget(key)
        if len(self._shown[status]) < SHOWN:
            self._shown[status][key] = result
        if part != self._parts[key]:
            # The list of items has changed since: the item belongs to another part now.
            self._elsewhere[key] = result
        self.status[key] = status

    def _forget(self, key: str) -> None:
        for shown in self._shown.values():
            shown.pop(key, None)
        self._elsewhere.pop(key, None)
        self.status.pop(key, None)

    def _add(self, records: Sequence[tuple[Item, dict[str, Any]]]) -> list[int]:
        """Append records, repeatedly if that fails, and return their numbers."""
        with self._lock:
            numbers = list(range(self._next, self._next + len(records)))
            self._next += len(records)
        lines: dict[str, list[str]] = {}
        for number, (item, record) in zip(numbers, records, strict=True):
            line = {"key": item.key, "n": number, "does": self._does(item), **record}
            lines.setdefault(self._parts[item.key], []).append(json.dumps(line, ensure_ascii=False))
        for part, found in lines.items():
            self._append(part, "\n".join(found).encode() + b"\n")
        return numbers

    def _append(self, part: str, content: bytes) -> None:
        def append() -> None:
            self._check()
            with self._writing:
                # It may have been given up while this thread waited for the others.
                self._retries.check()
                torn = part in self._torn
                # Until it has succeeded, a part of it may have been written.
                self._torn.add(part)
                self._storage.append(part, b"\n" + content if torn else content)
                self._torn.discard(part)

        self._retries.repeat(part, append)

    def _does(self, item: Item) -> str:
        return digest(self._identity.work, item.version)

    def _refuse(self, other: str) -> NoReturn:
        raise self._identity.conflict(self._storage, f"{self._recorded.text or self._identity.text}, {other}")
