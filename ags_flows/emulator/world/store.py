"""What survives a restart: one small JSON file for each resource, in a directory, or nothing at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Store:
    """JSON documents by kind and name, each replaced atomically.

    Args:
        directory: Where to keep them; None keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def put(self, kind: str, name: str, document: Json) -> None:
        """Write a document."""
        if self.directory is None:
            return
        folder = self.directory / kind
        folder.mkdir(exist_ok=True)
        draft = folder / f".{name}.new"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(draft, folder / f"{name}.json")

    def drop(self, kind: str, name: str) -> None:
        """Remove a document; harmless when there is none."""
        if self.directory is not None:
            (self.directory / kind / f"{name}.json").unlink(missing_ok=True)

    def all(self, kind: str) -> list[Json]:
        """Return all documents of a kind; what cannot be read is left out."""
        if self.directory is None or not (self.directory / kind).is_dir():
            return []
        documents = []
        for path in sorted((self.directory / kind).glob("*.json")):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            if isinstance(document, dict):
                documents.append(document)
        return documents
