"""One way to show rows: a table on a terminal, plain text on a pipe, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


def show(
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    title: str = "",
    as_json: bool = False,
    links: Mapping[str, str] | None = None,
    empty: str = "",
) -> None:
    """Write rows to standard output.

    Args:
        rows: Column names to values. JSON has all of a row's values, the other forms only `columns`.
        columns: What is shown, in this order. The first one is never folded: ids are there to be copied.
        title: Above a table.
        as_json: One JSON list.
        links: Column names to the names of the values that they link to, on terminals that can.
        empty: What is said on a terminal instead of a table without rows.
    """
    if as_json:
        print_json(list(rows))
        return
    console = Console()
    if not console.is_terminal:
        write_plain([columns, *([_text(row.get(name)) for name in columns] for row in rows)])
        return
    if not rows and empty:
        console.print(empty, highlight=False)
        return
    table = Table(title=title or None, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(_linked(row, name, (links or {}).get(name)) for name in columns))
    console.print(table)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_plain(lines: Sequence[Sequence[str]]) -> None:
    """Write columns that are separated by tabs, for `cut` and `awk`."""
    for cells in lines:
        sys.stdout.write("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in cells) + "\n")


def _linked(row: Row, name: str, target: str | None) -> Text:
    address = row.get(target) if target else None
    return Text(_text(row.get(name)), style=f"link {address}" if address else "")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
