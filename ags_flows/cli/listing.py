"""How commands show rows: a table on a terminal, columns separated by tabs on a pipe, JSON with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

PADDING = 3
"""Columns of the terminal between two columns of a table."""

Row = Mapping[str, Any]
Writer = Callable[[str], object]


def text_of(value: Any) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(to_jsonable_python(value))


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: The value of the row: snake_case, as in JSON, and the heading on a pipe.
        title: The heading on a terminal. Default: the key, with spaces.
        text: Makes the text of a cell on a terminal.
        style: Makes the style of a cell from its value.
        link: The key of the URL that a cell links to, on terminals that can.
        whole: Whether a cell is never cut or folded, such as an id, which is there to be copied.
        folded: Whether a long cell is continued on the next line. Otherwise it is cut, with an ellipsis.
    """

    key: str
    title: str = ""
    text: Callable[[Any], str] = text_of
    style: Callable[[Any], str] = lambda value: ""
    link: str = ""
    whole: bool = False
    folded: bool = False

    @property
    def heading(self) -> str:
        """The heading on a terminal."""
        return self.title or self.key.replace("_", " ")


def show(
    rows: Sequence[Row], columns: Sequence[Column], *, title: str = "", as_json: bool = False, empty: str = ""
) -> None:
    """Write rows to standard output.

    Args:
        rows: Keys to values. JSON has all values of a row, the other forms only those of `columns`.
        columns: What is shown, in this order; on a terminal only those with a value in some row.
        title: Above a table.
        as_json: One JSON list.
        empty: What a terminal shows instead of a table without rows.
    """
    if as_json:
        print_json(list(rows))
        return
    console = Console()
    if not console.is_terminal:
        _write_plain([[one.key for one in columns], *([text_of(row.get(one.key)) for one in columns] for row in rows)])
        return
    if not rows and empty:
        console.print(empty, highlight=False)
        return
    # A column without any value would only take room from the others.
    columns = [one for one in columns if any(one.text(row.get(one.key)) for row in rows)]
    widths = [max(len(one.heading), *(len(one.text(row.get(one.key))) for row in rows)) for one in columns]
    # On a narrow terminal the columns that may be cut share what the others leave.
    shared = sum(widths) + PADDING * len(columns) > console.width
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, expand=shared)
    for one, width in zip(columns, widths, strict=True):
        table.add_column(
            one.heading,
            no_wrap=not one.folded,
            overflow="fold" if one.folded else "ellipsis",
            min_width=width if one.whole else None,
            ratio=width if shared and not one.whole else None,
        )
    for row in rows:
        table.add_row(*(_cell(row, one) for one in columns))
    console.print(table)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output: numbers as numbers, times in ISO 8601 with their zone."""
    sys.stdout.write(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False) + "\n")


def writers() -> tuple[Writer, Writer]:
    """Return what writes output of a command to standard output and standard error, unbuffered."""

    def out(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return out, sys.stderr.write


def _write_plain(lines: Sequence[Sequence[str]]) -> None:
    for cells in lines:
        sys.stdout.write("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in cells) + "\n")


def _cell(row: Row, column: Column) -> Text:
    value = row.get(column.key)
    url = row.get(column.link) if column.link else None
    styles = [column.style(value), f"link {url}" if url else ""]
    return Text(column.text(value), style=" ".join(filter(None, styles)))
