"""Bring the blocks and global limits of a Prefect server in step with the files of this directory.

`python blocks/register.py [FILES...]`: creates what is not there, updates what differs, and prints what it did. All
files are checked before the first document is written. A file is a list of `block: TYPE/NAME` with `fields`, and of
`limit: NAME` with `slots`, and `per_second` for a rate. A field may be `{environment: NAME}`: its value is read when
this runs; where the variable is not set and there is no `default`, the block is left out. `{block: TYPE/NAME}` refers
to another block. Fields that a file does not name keep the values that users gave them in the UI.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.core import Block, UnknownBlockType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    BlockDocumentCreate,
    BlockDocumentUpdate,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

import ags_flows  # noqa: F401 - its block types have to be known
from ags_flows.errors import AGSFlowsError, ConfigurationError
from ags_flows.run.automations import answering

HERE = Path(__file__).parent
NOTHING_WRITTEN = "Nothing was written."


@dataclass
class Document:
    """A block as its file describes it.

    Attributes:
        data: Fields, with the values of the environment in their places.
        references: Fields that are other blocks, by `TYPE/NAME`.
        missing: Environment variables that are not set.
    """

    slug: str
    name: str
    data: dict[str, Any] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.slug}/{self.name}"


@dataclass
class Limit:
    """A global concurrency limit, or with `per_second` a rate limit."""

    name: str
    slots: int
    per_second: float = 0.0


def register(files: list[Path]) -> Iterator[tuple[str, str]]:
    """Write documents and limits; give what was done, and to what.

    Raises:
        ConfigurationError: A file, a field or a reference is wrong; nothing was written.
        UnreachableError: The Prefect server did not respond.
    """
    wanted = [one for file in files for one in _read(file)]
    documents = [one for one in wanted if isinstance(one, Document)]
    with answering(), get_client(sync_client=True) as client:
        written = {one.title for one in documents if not one.missing}
        for document in _in_order(documents):
            _check(document, written, client)
        for limit in [one for one in wanted if isinstance(one, Limit)]:
            yield _write_limit(limit, client), f"limit {limit.name}"
        for document in _in_order(documents):
            if document.missing:
                yield "left out", f"block {document.title}: {', '.join(document.missing)} not set"
            else:
                yield _write_block(document, client), f"block {document.title}"


def _in_order(documents: list[Document]) -> list[Document]:
    """Return what others refer to before those others."""
    ordered: list[Document] = []
    waiting = list(documents)
    while waiting:
        titles = {one.title for one in waiting}
        ready = [one for one in waiting if titles.isdisjoint(one.references.values())]
        if not ready:
            raise ConfigurationError(f"{waiting[0].title} refers to itself, by other blocks.", hint=NOTHING_WRITTEN)
        ordered += ready
        waiting = [one for one in waiting if one not in ready]
    return ordered


def _read(file: Path) -> Iterator[Document | Limit]:
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read as YAML: {error}", hint=NOTHING_WRITTEN) from error
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict) and "/" in str(entry.get("block")) and entry.keys() <= {"block", "fields"}:
            yield _document(*entry["block"].split("/", 1), entry.get("fields") or {})
        elif isinstance(entry, dict) and "limit" in entry and entry.keys() <= {"limit", "slots", "per_second"}:
            yield _limit(file, entry)
        else:
            raise ConfigurationError(
                f"{file}: {entry!r} is neither `block: TYPE/NAME` with `fields`, nor `limit: NAME` with `slots`.",
                hint=NOTHING_WRITTEN,
            )


def _document(slug: str, name: str, fields: dict[str, Any]) -> Document:
    document = Document(slug, name)
    for key, value in fields.items():
        if isinstance(value, dict) and value.keys() == {"block"}:
            document.references[key] = value["block"]
        elif isinstance(value, dict) and "environment" in value and value.keys() <= {"environment", "default"}:
            found = os.environ.get(value["environment"]) or value.get("default")
            if found is None:
                document.missing.append(value["environment"])
            document.data[key] = found
        else:
            document.data[key] = value
    return document


def _limit(file: Path, entry: dict[str, Any]) -> Limit:
    name, slots, rate = entry["limit"], entry.get("slots"), entry.get("per_second", 0.0)
    if not isinstance(slots, int) or slots < 1 or not isinstance(rate, int | float) or rate < 0:
        raise ConfigurationError(
            f"{file}: limit {name}: `slots` is a whole number from 1, `per_second` a number from 0.",
            hint=NOTHING_WRITTEN,
        )
    return Limit(str(name), slots, float(rate))


def _check(document: Document, written: set[str], client: SyncPrefectClient) -> None:
    """Try the fields on the block's class, and whether what it refers to is or will be there."""
    try:
        kind = Block.get_block_class_from_key(document.slug)
    except UnknownBlockType:
        raise ConfigurationError(
            f"{document.title}: there is no block type {document.slug!r}.", hint=NOTHING_WRITTEN
        ) from None
    if unknown := (document.data.keys() | document.references.keys()) - kind.model_fields.keys():
        raise ConfigurationError(f"{document.title} has no field {sorted(unknown)[0]!r}.", hint=NOTHING_WRITTEN)
    if document.missing:
        return
    for reference in document.references.values():
        if reference not in written and _known(reference, client) is None:
            raise ConfigurationError(
                f"{document.title}: the block {reference!r} is neither on the server nor in these files.",
                hint=NOTHING_WRITTEN,
            )
    try:
        kind(**document.data)
    except (ConfigurationError, ValidationError) as error:
        raise ConfigurationError(f"{document.title}: {error}", hint=NOTHING_WRITTEN) from None


def _write_block(document: Document, client: SyncPrefectClient) -> str:
    kind = Block.get_block_class_from_key(document.slug)
    kind.register_type_and_schema(client=client)
    targets = {name: _known(reference, client) for name, reference in document.references.items()}
    references = {name: {"$ref": {"block_document_id": str(one.id)}} for name, one in targets.items() if one}
    known = _known(document.title, client)
    schema, kind_id = kind._block_schema_id, kind._block_type_id
    data = {**document.data, **references}
    if known is None:
        client.create_block_document(
            BlockDocumentCreate(name=document.name, data=data, block_schema_id=schema, block_type_id=kind_id)
        )
        return "created"
    changed = [name for name, value in document.data.items() if known.data.get(name) != value]
    changed += [name for name, one in targets.items() if one and _reference(known, name) != str(one.id)]
    if not changed:
        return "left"
    client.update_block_document(known.id, BlockDocumentUpdate(block_schema_id=schema, data=data))
    return f"changed ({', '.join(changed)})"


def _write_limit(limit: Limit, client: SyncPrefectClient) -> str:
    values = {"limit": limit.slots, "slot_decay_per_second": limit.per_second}
    try:
        known = client.read_global_concurrency_limit_by_name(limit.name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit.name, **values))
        return "created"
    before = {"limit": known.limit, "slot_decay_per_second": known.slot_decay_per_second}
    if before == values:
        return "left"
    client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(**values))
    return f"changed (from {known.limit})" if known.limit != limit.slots else "changed (per_second)"


def _known(title: str, client: SyncPrefectClient) -> BlockDocument | None:
    slug, _, name = title.partition("/")
    try:
        return client.read_block_document_by_name(name, slug, include_secrets=True)
    except ObjectNotFound:
        return None


def _reference(known: BlockDocument, name: str) -> str:
    reference = known.block_document_references.get(name) or {}
    return str((reference.get("block_document") or {}).get("id", ""))


def main(arguments: list[str]) -> int:
    """Register the files that are named, by default all of this directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="by default all of this directory")
    files = parser.parse_args(arguments).files or sorted(HERE.glob("*.yaml"))
    try:
        for change, what in register(files):
            print(f"{change:<8} {what}")
    except AGSFlowsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
