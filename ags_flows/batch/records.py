"""The records of a batch as text: one line of JSON each, in numbered parts."""

from __future__ import annotations

import json
from typing import Any

from ags_flows.batch.storage import Storage
from ags_flows.models import ItemResult


def record_of(result: ItemResult) -> dict[str, Any]:
    """Return a result as it is recorded. Raises an error if it has a value that cannot be, such as a very deep one."""
    return result.model_dump(mode="json", exclude_defaults=True)


def records_of(storage: Storage, part: str) -> list[dict[str, Any]]:
    """Return the whole records of a part."""
    return parsed(storage.read(part))


def parsed(content: bytes) -> list[dict[str, Any]]:
    """Return the whole records of a text."""
    found = []
    for line in content.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def part_name(part: int) -> str:
    """Return the name of a part."""
    return f"ledger-{part:05d}.jsonl"
