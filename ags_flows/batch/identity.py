"""What a batch is: its work, its items and its step, and the first record of a results location that has them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ags_flows.batch.items import Item, Items
from ags_flows.batch.records import part_name, records_of
from ags_flows.batch.storage import Storage, repeated, reported
from ags_flows.batch.work import Work
from ags_flows.errors import ConfigurationError
from ags_flows.models import BatchOptions
from ags_flows.ownership import digest, fingerprint

BATCH = "batch.json"


@dataclass(frozen=True)
class Identity:
    """What a batch is.

    Attributes:
        does: Fingerprint of the command or function and of the caller's `step=`: another one is another batch.
        work: Fingerprint of all that decides about an item's result but the item: if it changes, items are done again.
        text: The same as text, without secrets.
        items: Fingerprint of the items.
    """

    does: str
    work: str
    text: str
    items: str = ""

    def check(self, storage: Storage) -> Recorded:
        """Refuse a location of another batch; return what is recorded there.

        Raises:
            ConfigurationError: The location has the results of another batch, or cannot be read.
        """
        with reported(storage, "read"):
            found = Recorded.read(storage)
        if found.does not in ("", self.does):
            raise self.conflict(storage, found.text)
        return found

    def record(self, storage: Storage, parts: int = 0) -> None:
        """Write what the batch is, before anything is started.

        Args:
            storage: The results location.
            parts: How many parts the records have.

        Raises:
            ConfigurationError: The location cannot be written.
        """
        with reported(storage, "written to"):
            repeated(storage, lambda: self.write(storage, parts), first=True)

    def write(self, storage: Storage, parts: int) -> None:
        """Write it, without a repetition."""
        record = {"batch": self.text, "does": self.does, "items": self.items, "parts": parts}
        storage.write(BATCH, json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def conflict(self, storage: Storage, other: str) -> ConfigurationError:
        """Return the error for a location that belongs to another batch."""
        # Arguments and long commands are not a part of the descriptions.
        here = self.text if other != self.text else f"{self.text}, with other arguments, values or code"
        return ConfigurationError(
            f"results: {storage.where('')} belongs to another batch. There: {other}. Here: {here}.",
            hint="Give this batch another location for its results. Nothing was started.",
        )

    def fit(self, storage: Storage, items: Sequence[Item]) -> int:
        """Return how well the records of a location fit a batch: the more items, the better; 0 if it has others."""
        found = Recorded.read(storage)
        if found.items == self.items:
            return sys.maxsize
        parts = (partial(records_of, storage, part_name(part)) for part in range(found.parts))
        records = (record for part in parts for record in repeated(storage, part, first=True))
        recorded = {str(record.get("key")) for record in records}
        return 1 + len(recorded) if recorded <= {item.key for item in items} else 0


@dataclass(frozen=True)
class Recorded:
    """The first record of a location. All is empty in a new one.

    Attributes:
        does: See `Identity`.
        text: See `Identity`.
        items: See `Identity`.
        parts: How many parts the records have.
    """

    does: str = ""
    text: str = ""
    items: str = ""
    parts: int = 0

    @classmethod
    def read(cls, storage: Storage) -> Recorded:
        """Read it; one that the death of its writer has cut counts as never written."""
        content = repeated(storage, lambda: storage.read(BATCH), first=True)
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            return cls()
        does, text, items = (str(found.get(name, "")) for name in ("does", "batch", "items"))
        return cls(does, text, items, int(found.get("parts", 0)))


def identity_of(read: Items, work: Work, options: BatchOptions, shards: int = 0) -> Identity:
    """Return what a batch is."""
    parts = [f"{work.text} for {_counted(len(read.all), 'item')}"]
    parts += [f"of {read.source}"] if read.source else []
    parts += [f"in {_counted(shards, 'shard')}"] if shards else []
    parts += [f"as step {options.step!r}"] if options.step else []
    # The content of files takes long to read.
    items = sorted([item.key, "" if item.path else item.version] for item in read.all)
    does = digest(work.does, options.step, str(shards))
    return Identity(does, work.version, " ".join(parts), fingerprint(items))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
