"""The parts of a batch that runs on several machines: which items each shard has, and where it keeps what it knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ags_flows.batch.items import Item, Items
from ags_flows.batch.storage import Storage, repeated, storage_at
from ags_flows.errors import ConfigurationError
from ags_flows.ownership import digest

ITEMS = "items.jsonl"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Slice:
    """The part of one shard.

    Attributes:
        number: Which shard, from 0.
        location: The results location of the shard, below that of the batch.
        items: Its items, with their indexes in the whole batch.
    """

    number: int
    location: str
    items: tuple[Item, ...]

    @property
    def storage(self) -> Storage:
        """The results location."""
        return storage_at(self.location)

    def write(self) -> None:
        """Write the items where the shard reads them, whichever machine it runs on."""
        lines = [
            json.dumps(
                {
                    "key": item.key,
                    "index": item.index,
                    "value": item.value,
                    "path": str(item.path.absolute()) if item.path else None,
                    # The shard does not read all files again.
                    "version": item.version,
                }
            )
            for item in self.items
        ]
        storage, content = self.storage, "\n".join([*lines, ""]).encode()
        repeated(storage, lambda: storage.write(ITEMS, content))


def sliced(items: Sequence[Item], shards: int, location: str) -> list[Slice]:
    """Divide items among shards by their keys: a list that grows leaves each item with its shard.

    Args:
        items: All items.
        shards: How many shards; those without items are left out.
        location: The results location of the batch.
    """
    parts: list[list[Item]] = [[] for _ in range(shards)]
    for item in items:
        parts[int(digest("shard", item.key), 16) % shards].append(item)
    return [
        Slice(
            number,
            f"{location.rstrip('/')}/shard-{number:04d}",
            tuple(part),
        )
        for number, part in enumerate(parts)
        if part
    ]


def items_at(location: str) -> Items:
    """Return the items of the shard whose results location this is.

    Raises:
        ConfigurationError: There are none: this machine does not see what the parent of the shard wrote.
    """
    storage = storage_at(location)
    content = repeated(storage, lambda: storage.read(ITEMS))
    if not content:
        raise ConfigurationError(
            f"location: {storage.where(ITEMS)} does not exist on this machine.",
            hint="Give run_batch results= that all workers can read and write: a shared directory, or a URL.",
        )
    items = []
    for line in content.splitlines():
        found = json.loads(line)
        path = Path(found["path"]) if found["path"] else None
        items.append(Item(found["key"], found["index"], found["value"], path, storage.where(ITEMS), found["version"]))
    return Items(tuple(items), source=location, is_slice=True)
