"""What has been begun and what is done: lines that are added to, and read again by whoever goes on with the batch.

Items are spread over parts of a fixed number of items, so that a store whose objects cannot grow writes little anew.
A line that was cut in the middle by the death of its writer counts as never written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from pydantic import ValidationError

from ags_flows.batch.items import Item
from ags_flows.batch.storage import RESULTS, Storage, telling
from ags_flows.errors import ConfigurationError
from ags_flows.models import ItemResult

PART = 100


@dataclass(frozen=True)
class Begun:
    """An attempt at an item of which no end is known."""

    instance_id: str
    attempt: int


class Ledger:
    """The state of a batch in a storage. Thread-safe.

    Args:
        storage: Where it is kept.
        items: The items.
    """

    def __init__(self, storage: Storage, items: Iterable[Item]) -> None:
        """Read what earlier attempts left."""
        self._storage = storage
        self._items = {item.key: item for item in items}
        self._lock = threading.Lock()
        self.results: dict[str, ItemResult] = {}
        self.begun: dict[str, Begun] = {}
        self.attempts: dict[str, int] = {}
        self._torn: set[str] = set()
        with telling(storage, "read"):
            for part in sorted({self._part(item) for item in self._items.values()}):
                self._read(part)
        self.resumed = frozenset(key for key, result in self.results.items() if result.status == "ok")

    def prepare(self) -> None:
        """Try whether the storage can be written to, before anything is started.

        Raises:
            ConfigurationError: It cannot.
        """
        with telling(self._storage, "written to"):
            self._storage.append(self._part(next(iter(self._items.values()))), b"")

    def begin(self, item: Item, instance_id: str, attempt: int) -> None:
        """Note that an item is about to be worked on."""
        with self._lock:
            self.attempts[item.key] = attempt
        record = {"key": item.key, "begun": instance_id, "attempt": attempt}
        self._add(item, json.dumps(record, ensure_ascii=False))

    def finish(self, item: Item, result: ItemResult) -> None:
        """Note what became of an item, for good or until a later attempt of the batch."""
        with self._lock:
            self.results[item.key] = result
            self.begun.pop(item.key, None)
        self._add(item, result.model_dump_json())

    def write_results(self) -> str:
        """Write all results in the order of the items, and return where they are."""
        ordered = sorted(self.results.values(), key=lambda result: result.index)
        lines = b"".join(result.model_dump_json().encode() + b"\n" for result in ordered)
        self._storage.write(RESULTS, lines)
        return self._storage.where(RESULTS)

    def _part(self, item: Item) -> str:
        return f"ledger-{item.index // PART:05d}.jsonl"

    def _add(self, item: Item, record: str) -> None:
        part = self._part(item)
        line = record.encode() + b"\n"
        with self._lock:
            if part in self._torn:
                self._torn.remove(part)
                line = b"\n" + line
            self._storage.append(part, line)

    def _read(self, part: str) -> None:
        content = self._storage.read(part)
        if content and not content.endswith(b"\n"):
            self._torn.add(part)
        for line in content.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or record.get("key") not in self._items:
                self._refuse(part)
            self._take(part, record)

    def _take(self, part: str, record: dict[str, object]) -> None:
        key = str(record["key"])
        if "begun" in record:
            attempt = int(str(record["attempt"]))
            self.begun[key] = Begun(str(record["begun"]), attempt)
            self.attempts[key] = attempt
            return
        try:
            result = ItemResult.model_validate(record)
        except ValidationError:
            self._refuse(part)
        self.results[key] = result.model_copy(update={"index": self._items[key].index})
        self.begun.pop(key, None)

    def _refuse(self, part: str) -> NoReturn:
        raise ConfigurationError(
            f"results: {self._storage.where(part)} belongs to a batch of other items.",
            hint="Give this batch another place for its results. Nothing was started.",
        )
